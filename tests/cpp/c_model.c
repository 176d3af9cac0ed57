/* Calls the dtwin_model_ functions of dtwin.h from C.
 *
 * load FOLDER...: the status and the message of each
 * describe FOLDER: sizes and names
 * run FOLDER IN OUT SUBJECTS UNIT MISSING THREADS BYTES [TASK...]: IN/edges and gradients IN/d_...
 *     (those that are there), as raw float32; every result to OUT likewise
 * misuses FOLDER: the status of every misuse, and whether the results are as they were
 */
#include <dtwin.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static void *checked(void *memory) {
    if (!memory) exit(3);
    return memory;
}

/* All of a folder's file, or NULL where it is not there. */
static float *read_floats(const char *folder, const char *name, size_t count) {
    char path[4096];
    FILE *file;
    float *numbers;
    snprintf(path, sizeof path, "%s/%s", folder, name);
    file = fopen(path, "rb");
    if (!file) return NULL;
    numbers = checked(malloc(count * sizeof(float) + 1));
    if (fread(numbers, sizeof(float), count, file) != count) exit(4);
    fclose(file);
    return numbers;
}

static void write_bytes(const char *folder, const char *name, const void *data, size_t size) {
    char path[4096];
    FILE *file;
    snprintf(path, sizeof path, "%s/%s", folder, name);
    file = checked(fopen(path, "wb"));
    if (fwrite(data, 1, size, file) != size || fclose(file)) exit(5);
}

static float *room(size_t count) {
    return checked(malloc(count * sizeof(float) + 1));
}

static void must(int status, const char *what) {
    if (!status) return;
    fprintf(stderr, "%s: %d %s\n", what, status, dtwin_model_message());
    exit(6);
}

static dtwin_model *open_model(const char *folder) {
    dtwin_model *model = NULL;
    must(dtwin_model_load(folder, &model), folder);
    return model;
}

static int load(int n, char **folders) {
    int i;
    for (i = 0; i < n; ++i) {
        dtwin_model *model = (dtwin_model *)folders;
        const int status = dtwin_model_load(folders[i], &model);
        if (status && model) exit(7);
        printf("%d %s\n", status, status ? dtwin_model_message() : "");
        dtwin_model_free(model);
    }
    return 0;
}

static int describe(const char *folder) {
    dtwin_model *model = open_model(folder);
    dtwin_model_sizes sizes = {.struct_size = sizeof sizes};
    int64_t i, k;
    must(dtwin_model_get_sizes(model, &sizes), "sizes");
    printf("%d %d %d %d %d %d %d %d %d %d %d %.17g %.17g\n", sizes.cell, sizes.head,
           (int)sizes.n_regions, (int)sizes.n_edges, (int)sizes.n_hidden, (int)sizes.n_inputs,
           (int)sizes.n_outputs, (int)sizes.n_actions, (int)sizes.n_bold_regions,
           (int)sizes.n_weights, (int)sizes.n_tasks, sizes.dt_s, sizes.tr_s);
    printf("%s\n", dtwin_model_sha256(model));
    for (i = 0; dtwin_model_region(model, i); ++i) printf("%s ", dtwin_model_region(model, i));
    printf("\n");
    for (i = 0; dtwin_model_bold_region(model, i); ++i) {
        printf("%s ", dtwin_model_bold_region(model, i));
    }
    printf("\n");
    for (i = 0; dtwin_model_task(model, i); ++i) {
        dtwin_task_sizes task = {.struct_size = sizeof task};
        must(dtwin_model_get_task_sizes(model, i, &task), "task");
        printf("%s %d %d %d %d", dtwin_model_task(model, i), (int)task.n_steps,
               (int)task.n_trials, (int)task.n_volumes, (int)task.n_contrasts);
        for (k = 0; dtwin_model_contrast(model, i, k); ++k) {
            printf(" %s", dtwin_model_contrast(model, i, k));
        }
        printf("\n");
    }
    if (dtwin_model_region(model, -1) || dtwin_model_contrast(model, 9, 0)) return 1;
    dtwin_model_free(model);
    return 0;
}

/* Sizes of the tasks that are named, or of all. */
static dtwin_task_sizes sizes_of(const dtwin_model *model, int n, char **names) {
    dtwin_task_sizes sum = {.struct_size = sizeof sum};
    int64_t i;
    int j;
    for (i = 0; dtwin_model_task(model, i); ++i) {
        dtwin_task_sizes task = {.struct_size = sizeof task};
        int wanted = n == 0;
        for (j = 0; j < n; ++j) wanted |= !strcmp(names[j], dtwin_model_task(model, i));
        must(dtwin_model_get_task_sizes(model, i, &task), "task");
        if (!wanted) continue;
        if (task.n_steps > sum.n_steps) sum.n_steps = task.n_steps;
        sum.n_trials += task.n_trials;
        sum.n_volumes += task.n_volumes;
        sum.n_contrasts += task.n_contrasts;
    }
    return sum;
}

/* The rollout of dtwin_rollout() with the model's weights and inputs. */
static void roll_out(const dtwin_model *model, const dtwin_model_sizes *sizes, const char *out,
                     const float *weights, const float *inputs, int64_t S, int64_t B, int64_t T) {
    dtwin_rollout_params p;
    const size_t count = (size_t)(S * B * T * sizes->n_outputs);
    float *outputs = room(count), *h = room((size_t)(S * B * sizes->n_hidden));
    float *c = room((size_t)(S * B * sizes->n_hidden));
    uint8_t *diverged = checked(malloc((size_t)S + 1));
    memset(&p, 0, sizeof p);
    p.struct_size = sizeof p;
    must(dtwin_model_set_weights(model, weights, S, &p), "set_weights");
    p.n_sequences = B;
    p.n_steps = T;
    p.inputs = inputs;
    p.inputs_sequence_stride = T * sizes->n_inputs;
    p.outputs = outputs;
    p.h_final = h;
    p.c_final = sizes->cell == DTWIN_LSTM ? c : NULL;
    p.diverged = diverged;
    if (dtwin_rollout(&p)) exit(8);
    write_bytes(out, "outputs", outputs, count * sizeof(float));
    free(outputs);
    free(h);
    free(c);
    free(diverged);
}

static int run(int argc, char **argv) {
    const char *in = argv[1], *out = argv[2];
    dtwin_model *model = open_model(argv[0]);
    const int n_tasks = argc - 8;
    char **names = argv + 8;
    const dtwin_task_sizes task = sizes_of(model, n_tasks, names);
    dtwin_model_sizes sizes = {.struct_size = sizeof sizes};
    dtwin_people people = {.struct_size = sizeof people};
    dtwin_predictions p = {.struct_size = sizeof p};
    dtwin_edge_gradients g = {.struct_size = sizeof g};
    size_t S, trials, weights_size, input_size;
    int64_t B;
    float *weights, *inputs, *edges;
    must(dtwin_model_get_sizes(model, &sizes), "sizes");
    B = n_tasks ? n_tasks : sizes.n_tasks;
    people.n_subjects = atoi(argv[3]);
    people.unit = atoi(argv[4]);
    people.missing = atoi(argv[5]);
    people.n_threads = atoi(argv[6]);
    people.max_bytes = atoll(argv[7]);
    S = (size_t)people.n_subjects;
    trials = S * (size_t)task.n_trials;
    edges = checked(read_floats(in, "edges", S * (size_t)sizes.n_edges));
    people.edges = edges;

    weights_size = S * (size_t)sizes.n_weights;
    weights = room(weights_size);
    must(dtwin_model_personalize(model, &people, weights), "personalize");
    write_bytes(out, "weights", weights, weights_size * sizeof(float));
    input_size = (size_t)(B * task.n_steps * sizes.n_inputs);
    inputs = room(input_size);
    must(dtwin_model_encode(model, n_tasks, (const char *const *)names, inputs), "encode");
    write_bytes(out, "inputs", inputs, input_size * sizeof(float));
    roll_out(model, &sizes, out, weights, inputs, people.n_subjects, B, task.n_steps);

    p.n_tasks = n_tasks;
    p.tasks = (const char *const *)names;
    {
        const size_t effects = S * (size_t)(task.n_contrasts * sizes.n_bold_regions);
        const size_t series = S * (size_t)(task.n_volumes * sizes.n_bold_regions);
        const size_t actions = (size_t)sizes.n_actions;
        float *alone = room(effects), *d_edges = room(S * (size_t)sizes.n_edges);
        float *d_choice_prob, *d_rt_s, *d_contrasts, *d_bold;
        p.contrasts = alone;
        must(dtwin_model_predict(model, &people, &p), "contrasts");
        write_bytes(out, "contrasts_alone", alone, effects * sizeof(float));
        p.choice_prob = room(trials * actions);
        p.rt_s = room(trials);
        p.contrasts = room(effects);
        p.bold = room(series);
        p.diverged = checked(malloc(S + 1));
        must(dtwin_model_predict(model, &people, &p), "predict");
        write_bytes(out, "choice_prob", p.choice_prob, trials * actions * sizeof(float));
        write_bytes(out, "rt_s", p.rt_s, trials * sizeof(float));
        write_bytes(out, "contrasts", p.contrasts, effects * sizeof(float));
        write_bytes(out, "bold", p.bold, series * sizeof(float));
        write_bytes(out, "diverged", p.diverged, S);

        g.n_tasks = n_tasks;
        g.tasks = p.tasks;
        g.d_choice_prob = d_choice_prob = read_floats(in, "d_choice_prob", trials * actions);
        g.d_rt_s = d_rt_s = read_floats(in, "d_rt_s", trials);
        g.d_contrasts = d_contrasts = read_floats(in, "d_contrasts", effects);
        g.d_bold = d_bold = read_floats(in, "d_bold", series);
        g.d_edges = d_edges;
        must(dtwin_model_vjp(model, &people, &g), "vjp");
        write_bytes(out, "d_edges", d_edges, S * (size_t)sizes.n_edges * sizeof(float));
        free(d_choice_prob);
        free(d_rt_s);
        free(d_contrasts);
        free(d_bold);
        free(d_edges);
        free(alone);
    }
    free(p.choice_prob);
    free(p.rt_s);
    free(p.contrasts);
    free(p.bold);
    free(p.diverged);
    free(inputs);
    free(weights);
    free(edges);
    dtwin_model_free(model);
    return 0;
}

enum { S = 2 };

/* What a misuse may change. */
typedef struct {
    dtwin_people people;
    dtwin_predictions p;
    dtwin_edge_gradients g;
    float *edges, *results, *d_edges;
    size_t n_edges, n_results;
    const char *names[3];
} call;

static call good_call(const dtwin_model *model) {
    dtwin_model_sizes sizes = {.struct_size = sizeof sizes};
    const dtwin_task_sizes task = sizes_of(model, 0, NULL);
    call c;
    size_t i;
    memset(&c, 0, sizeof c);
    must(dtwin_model_get_sizes(model, &sizes), "sizes");
    c.n_edges = (size_t)sizes.n_edges * S;
    c.n_results = (size_t)(task.n_contrasts * sizes.n_bold_regions) * S;
    c.edges = room(c.n_edges);
    c.d_edges = room(c.n_edges);
    c.results = room(c.n_results);
    for (i = 0; i < c.n_edges; ++i) c.edges[i] = (float)(i % 7) / 8 - 0.3f;
    for (i = 0; i < c.n_edges; ++i) c.d_edges[i] = 77;
    for (i = 0; i < c.n_results; ++i) c.results[i] = 77;
    c.people.struct_size = sizeof c.people;
    c.people.n_subjects = S;
    c.people.edges = c.edges;
    c.p.struct_size = sizeof c.p;
    c.p.contrasts = c.results;
    c.g.struct_size = sizeof c.g;
    c.g.d_contrasts = c.results;
    c.g.d_edges = c.d_edges;
    c.names[0] = "faces";
    c.names[1] = "stroop";
    c.names[2] = "faces";
    return c;
}

static int all_of(const float *numbers, size_t n) {
    size_t i;
    for (i = 0; i < n; ++i) {
        if (numbers[i] != 77) return 0;
    }
    return 1;
}

static void release(call c) {
    free(c.edges);
    free(c.d_edges);
    free(c.results);
}

#define MISUSE(name, change)                                                            \
    do {                                                                                \
        call c = good_call(model);                                                      \
        int status;                                                                     \
        change;                                                                         \
        status = dtwin_model_predict(model, &c.people, &c.p);                           \
        printf("%s %d %d %s\n", name, status, all_of(c.results, c.n_results),           \
               dtwin_model_message());                                                  \
        release(c);                                                                     \
    } while (0)

#define VJP_MISUSE(name, change)                                                        \
    do {                                                                                \
        call c = good_call(model);                                                      \
        int status;                                                                     \
        change;                                                                         \
        status = dtwin_model_vjp(model, &c.people, &c.g);                               \
        printf("vjp_%s %d %d %s\n", name, status, all_of(c.d_edges, c.n_edges),         \
               dtwin_model_message());                                                  \
        release(c);                                                                     \
    } while (0)

static int misuses(const char *folder) {
    dtwin_model *model = open_model(folder), *none = model;
    dtwin_model_sizes sizes = {.struct_size = sizeof sizes};
    static const float rt_s[1024]; /* at least S x N */
    dtwin_rollout_params params;
    float *weights = room(1);
    call nobody;
    const float nan = strtof("nan", NULL), infinity = strtof("inf", NULL);
    size_t i;
    int status;
    memset(&params, 0, sizeof params);
    MISUSE("people_version", c.people.struct_size = 0);
    MISUSE("predictions_version", c.p.struct_size += 8);
    MISUSE("unit", c.people.unit = 2);
    MISUSE("missing", c.people.missing = -1);
    MISUSE("threads", c.people.n_threads = -1);
    MISUSE("many_threads", c.people.n_threads = DTWIN_MAX_THREADS + 1);
    MISUSE("negative_subjects", c.people.n_subjects = -1);
    MISUSE("negative_bytes", c.people.max_bytes = -1);
    MISUSE("huge_subjects", c.people.n_subjects = (int64_t)1 << 60);
    MISUSE("no_edges", c.people.edges = NULL);
    MISUSE("misaligned", c.people.edges = (const float *)((const char *)c.edges + 1));
    MISUSE("overlap", c.p.contrasts = c.edges);
    MISUSE("no_names", c.p.n_tasks = 1);
    MISUSE("negative_tasks", c.p.n_tasks = -1);
    MISUSE("null_name", (c.p.n_tasks = 1, c.names[0] = NULL, c.p.tasks = c.names));
    MISUSE("unknown_task", (c.p.n_tasks = 1, c.names[0] = "nback", c.p.tasks = c.names));
    MISUSE("task_twice", (c.p.n_tasks = 2, c.names[1] = "faces", c.p.tasks = c.names));
    MISUSE("many_tasks", (c.p.n_tasks = 3, c.p.tasks = c.names));
    MISUSE("infinite", c.edges[3] = infinity);
    MISUSE("nan", c.edges[3] = nan);
    MISUSE("missing_regions", for (i = 0; i < 15; ++i) c.edges[i] = nan);
    MISUSE("z_as_r", c.edges[c.n_edges - 1] = 1.5f);
    MISUSE("r_of_7", c.edges[0] = -7);
    MISUSE("z_of_11", (c.people.unit = DTWIN_FISHER_Z, c.edges[0] = 11));
    MISUSE("all_zero", for (i = 0; i < c.n_edges / S; ++i) c.edges[i] = 0);
    MISUSE("no_subjects", (c.people.n_subjects = 0, c.people.edges = NULL));
    MISUSE("nothing_wanted", c.p.contrasts = NULL);
    VJP_MISUSE("version", c.g.struct_size = 1);
    VJP_MISUSE("no_d_edges", c.g.d_edges = NULL);
    VJP_MISUSE("overlap", c.g.d_edges = c.edges);
    VJP_MISUSE("overlap_gradients", c.g.d_contrasts = c.d_edges);
    VJP_MISUSE("unknown_task", (c.g.n_tasks = 1, c.names[0] = "", c.g.tasks = c.names));
    VJP_MISUSE("nan", c.edges[3] = nan);
    VJP_MISUSE("no_subjects", c.people.n_subjects = 0);
    must(dtwin_model_get_sizes(model, &sizes), "sizes");
    if (sizes.head == DTWIN_SIGMOID) VJP_MISUSE("behaviour", c.g.d_rt_s = rt_s);
    sizes.struct_size = 0;
    printf("null_model %d 1 %s\n", dtwin_model_predict(NULL, NULL, NULL), dtwin_model_message());
    printf("null_people %d 1 %s\n", dtwin_model_predict(model, NULL, NULL), dtwin_model_message());
    status = dtwin_model_load(NULL, &none);
    printf("null_folder %d %d %s\n", status, !none, dtwin_model_message());
    printf("null_out %d 1 %s\n", dtwin_model_load(folder, NULL), dtwin_model_message());
    printf("sizes_version %d 1 %s\n", dtwin_model_get_sizes(model, &sizes), dtwin_model_message());
    printf("rollout_version %d 1 %s\n", dtwin_model_set_weights(model, weights, 1, &params),
           dtwin_model_message());
    memset(&params, 0xff, sizeof params);
    params.struct_size = sizeof params;
    status = dtwin_model_set_weights(model, NULL, 0, &params);
    printf("nobodys_weights %d %d -\n", status,
           !params.n_subjects && !params.w_ih && !params.w_hh && !params.b_ih && !params.b_hh &&
               !params.w_out && !params.b_out);
    nobody = good_call(model);
    nobody.people.n_subjects = 0;
    printf("nobody_personalized %d 1 -\n", dtwin_model_personalize(model, &nobody.people, NULL));
    release(nobody);
    free(weights);
    dtwin_model_free(model);
    dtwin_model_free(NULL);
    return 0;
}

int main(int argc, char **argv) {
    if (argc >= 3 && !strcmp(argv[1], "load")) return load(argc - 2, argv + 2);
    if (argc == 3 && !strcmp(argv[1], "describe")) return describe(argv[2]);
    if (argc >= 10 && !strcmp(argv[1], "run")) return run(argc - 2, argv + 2);
    if (argc == 3 && !strcmp(argv[1], "misuses")) return misuses(argv[2]);
    return 1;
}
