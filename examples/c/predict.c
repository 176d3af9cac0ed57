/* predict MODEL EDGES: what a trained twin says of people, without Python.
 *
 * EDGES holds float32 numbers in this machine's byte order: for each subject the E Pearson
 * correlations of the upper triangle, row by row, regions in the model's order. Prints a table:
 * subject, quantity, where, value. In silico, not clinical.
 *
 * Without CMake: cc predict.c $(pkg-config --cflags --libs dtwin) -o predict
 */
#include <dtwin.h>
#include <stdio.h>
#include <stdlib.h>

static int failed(const char *what) {
    fprintf(stderr, "%s: %s\n", what, dtwin_model_message());
    return 1;
}

/* All floats of a file; NULL where it cannot be read. */
static float *read_floats(const char *path, size_t *count) {
    FILE *file = fopen(path, "rb");
    float *numbers = NULL;
    long size = -1;
    if (file && !fseek(file, 0, SEEK_END)) size = ftell(file);
    if (size > 0) numbers = malloc((size_t)size);
    if (numbers) {
        rewind(file);
        *count = fread(numbers, sizeof(float), (size_t)size / sizeof(float), file);
    }
    if (file) fclose(file);
    return numbers;
}

/* Predicts people with a model, prints, and says how it went (0 or 1). */
static int predict(const dtwin_model *model, const float *edges, size_t count) {
    dtwin_model_sizes sizes = {.struct_size = sizeof sizes};
    dtwin_task_sizes task = {.struct_size = sizeof task};
    dtwin_people people = {.struct_size = sizeof people};
    dtwin_predictions predictions = {.struct_size = sizeof predictions};
    dtwin_edge_gradients gradients = {.struct_size = sizeof gradients};
    const char *name;
    float *rt_s = NULL, *contrasts = NULL, *d_contrasts = NULL, *d_edges = NULL;
    int64_t s, n, k, q, e;
    int failure = 1;

    if (dtwin_model_get_sizes(model, &sizes)) return failed("sizes");
    if (dtwin_model_get_task_sizes(model, 0, &task)) return failed("task");
    name = dtwin_model_task(model, 0);
    if (task.n_contrasts * sizes.n_bold_regions == 0) {
        fprintf(stderr, "%s has no contrast in a region: this example needs one\n", name);
        return 1;
    }
    people.edges = edges;
    people.unit = DTWIN_PEARSON_R;
    people.n_subjects = (int64_t)count / sizes.n_edges;
    rt_s = calloc((size_t)(people.n_subjects * task.n_trials), sizeof *rt_s);
    contrasts = calloc((size_t)(people.n_subjects * task.n_contrasts * sizes.n_bold_regions),
                       sizeof *contrasts);
    d_contrasts = calloc((size_t)(people.n_subjects * task.n_contrasts * sizes.n_bold_regions),
                         sizeof *d_contrasts);
    d_edges = calloc((size_t)(people.n_subjects * sizes.n_edges), sizeof *d_edges);
    if (!rt_s || !contrasts || !d_contrasts || !d_edges) goto done;

    predictions.n_tasks = gradients.n_tasks = 1;
    predictions.tasks = gradients.tasks = &name;
    predictions.rt_s = rt_s;
    predictions.contrasts = contrasts;
    if (dtwin_model_predict(model, &people, &predictions)) {
        failed("predict");
        goto done;
    }

    /* How the first contrast in the first region would move with each edge. */
    for (s = 0; s < people.n_subjects; ++s) {
        d_contrasts[s * task.n_contrasts * sizes.n_bold_regions] = 1;
    }
    gradients.d_contrasts = d_contrasts;
    gradients.d_edges = d_edges;
    if (dtwin_model_vjp(model, &people, &gradients)) {
        failed("gradients");
        goto done;
    }

    printf("subject\tquantity\twhere\tvalue\n");
    for (s = 0; s < people.n_subjects; ++s) {
        const float *effect = contrasts + s * task.n_contrasts * sizes.n_bold_regions;
        double mean = 0, length = 0;
        for (n = 0; n < task.n_trials; ++n) mean += rt_s[s * task.n_trials + n];
        printf("%d\tmean_rt_s\t%s\t%.6f\n", (int)s, name, mean / (double)task.n_trials);
        for (k = 0; k < task.n_contrasts; ++k) {
            for (q = 0; q < sizes.n_bold_regions; ++q) {
                printf("%d\t%s\t%s\t%.6f\n", (int)s, dtwin_model_contrast(model, 0, k),
                       dtwin_model_bold_region(model, q),
                       (double)effect[k * sizes.n_bold_regions + q]);
            }
        }
        for (e = 0; e < sizes.n_edges; ++e) {
            length += (double)d_edges[s * sizes.n_edges + e] * d_edges[s * sizes.n_edges + e];
        }
        printf("%d\tsquared_gradient\tedges\t%.6f\n", (int)s, length);
    }
    failure = 0;
done:
    free(rt_s);
    free(contrasts);
    free(d_contrasts);
    free(d_edges);
    return failure;
}

int main(int argc, char **argv) {
    dtwin_model *model = NULL;
    float *edges;
    size_t count = 0;
    int failure;
    if (argc != 3) {
        fprintf(stderr, "usage: %s MODEL EDGES\n", argv[0]);
        return 2;
    }
    if (dtwin_model_load(argv[1], &model)) return failed(argv[1]);
    edges = read_floats(argv[2], &count);
    if (edges) {
        failure = predict(model, edges, count);
    } else {
        fprintf(stderr, "%s cannot be read\n", argv[2]);
        failure = 1;
    }
    free(edges);
    dtwin_model_free(model);
    return failure;
}
