/* Calls dtwin.h from C: prints a rollout or its gradients, or the status of every misuse. */
#include <dtwin.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { S = 3, B = 2, T = 70, I = 2, H = 7, O = 5, K = 2 };

static int real_size = 4;

static void set(void *array, size_t i, double value) {
    if (real_size == 8) ((double *)array)[i] = value;
    else ((float *)array)[i] = (float)value;
}

static double get(const void *array, size_t i) {
    return real_size == 8 ? ((const double *)array)[i] : ((const float *)array)[i];
}

/* Multiples of 2^-14 within +-1/8: exact in float32, not in bfloat16, and the same in Python. */
static void *numbers(size_t n, unsigned seed) {
    void *array = malloc(n * (size_t)real_size);
    size_t i;
    if (!array) exit(3);
    for (i = 0; i < n; ++i) set(array, i, ((double)((i * 37 + seed * 11) % 4019) - 2009) / 16384);
    return array;
}

static void print(const char *name, const void *array, size_t n) {
    size_t i;
    printf("%s", name);
    for (i = 0; i < n; ++i) printf(" %.17g", get(array, i));
    printf("\n");
}

static dtwin_rollout_params problem(int cell, int dtype, int weights, int projected) {
    const size_t gates[] = {1, 3, 4};
    const size_t rows = gates[cell] * H;
    const size_t out = projected ? K : T;
    dtwin_rollout_params p;
    real_size = dtype == DTWIN_FLOAT64 ? 8 : 4;
    memset(&p, 0, sizeof p);
    p.struct_size = sizeof p;
    p.cell = cell;
    p.dtype = dtype;
    p.weights = weights;
    p.n_threads = 2;
    p.n_subjects = S;
    p.n_sequences = B;
    p.n_steps = T;
    p.n_inputs = I;
    p.n_hidden = H;
    p.n_outputs = O;
    p.w_ih = numbers(S * rows * I, 1);
    p.w_ih_stride = (int64_t)(rows * I);
    p.w_hh = numbers(S * rows * H, 2);
    p.w_hh_stride = (int64_t)(rows * H);
    p.b_ih = numbers(S * rows, 3);
    p.b_ih_stride = (int64_t)rows;
    p.b_hh = numbers(S * rows, 4);
    p.b_hh_stride = (int64_t)rows;
    p.w_out = numbers(S * O * H, 5);
    p.w_out_stride = O * H;
    p.b_out = numbers(S * O, 6);
    p.b_out_stride = O;
    p.inputs = numbers(B * T * I, 7);
    p.inputs_sequence_stride = T * I;
    p.h0 = numbers(S * B * H, 8);
    p.c0 = numbers(S * B * H, 9);
    if (projected) {
        p.projection = numbers(K * T, 10);
        p.n_projected = K;
    }
    p.outputs = numbers(S * B * out * O, 0);
    p.states = numbers(S * B * T * H, 0);
    p.h_final = numbers(S * B * H, 0);
    p.c_final = numbers(S * B * H, 0);
    p.diverged = (uint8_t *)malloc(S);
    memset(p.diverged, 7, S);
    return p;
}

/* With gradients of the states and of the final ones, too, where they are `given`. */
static dtwin_rollout_vjp_params vjp_problem(int cell, int dtype, int weights, int projected,
                                            int given) {
    const dtwin_rollout_params p = problem(cell, dtype, weights, projected);
    const size_t rows = (size_t)(p.w_hh_stride / H);
    dtwin_rollout_vjp_params g;
    memset(&g, 0, sizeof g);
    g.struct_size = sizeof g;
    g.rollout = p;
    g.d_outputs = numbers(S * B * (projected ? K : T) * O, 11);
    if (given) {
        g.d_states = numbers(S * B * T * H, 12);
        g.d_h_final = numbers(S * B * H, 13);
        g.d_c_final = numbers(S * B * H, 14);
    }
    g.d_w_ih = numbers(S * rows * I, 0);
    g.d_w_hh = numbers(S * rows * H, 0);
    g.d_b_ih = numbers(S * rows, 0);
    g.d_b_hh = numbers(S * rows, 0);
    g.d_w_out = numbers(S * O * H, 0);
    g.d_b_out = numbers(S * O, 0);
    g.d_inputs = numbers(S * B * T * I, 0);
    g.d_h0 = numbers(S * B * H, 0);
    g.d_c0 = numbers(S * B * H, 0);
    return g;
}

static void release(dtwin_rollout_params p) {
    free((void *)p.w_ih);
    free((void *)p.w_hh);
    free((void *)p.b_ih);
    free((void *)p.b_hh);
    free((void *)p.w_out);
    free((void *)p.b_out);
    free((void *)p.inputs);
    free((void *)p.h0);
    free((void *)p.c0);
    free((void *)p.projection);
    free(p.outputs);
    free(p.states);
    free(p.h_final);
    free(p.c_final);
    free(p.diverged);
}

static void release_vjp(dtwin_rollout_vjp_params g) {
    release(g.rollout);
    free((void *)g.d_outputs);
    free((void *)g.d_states);
    free((void *)g.d_h_final);
    free((void *)g.d_c_final);
    free(g.d_w_ih);
    free(g.d_w_hh);
    free(g.d_b_ih);
    free(g.d_b_hh);
    free(g.d_w_out);
    free(g.d_b_out);
    free(g.d_inputs);
    free(g.d_h0);
    free(g.d_c0);
}

/* Where gradients of the states are `given`, the states are, too. */
static int vjp_of(int cell, int dtype, int weights, int projected, int given) {
    const dtwin_rollout_vjp_params whole = vjp_problem(cell, dtype, weights, projected, given);
    dtwin_rollout_vjp_params g = whole;
    const size_t rows = (size_t)(g.rollout.w_hh_stride / H);
    int status = given ? dtwin_rollout(&whole.rollout) : DTWIN_OK;
    if (given) g.states = whole.rollout.states;
    g.rollout.outputs = g.rollout.states = g.rollout.h_final = g.rollout.c_final = NULL;
    g.rollout.diverged = NULL;
    if (cell != DTWIN_LSTM) g.d_c0 = NULL;
    if (!status) status = dtwin_rollout_vjp(&g);
    if (status) {
        fprintf(stderr, "%s\n", dtwin_strerror(status));
        return 2;
    }
    print("w_ih", g.d_w_ih, S * rows * I);
    print("w_hh", g.d_w_hh, S * rows * H);
    print("b_ih", g.d_b_ih, S * rows);
    print("b_hh", g.d_b_hh, S * rows);
    print("w_out", g.d_w_out, S * O * H);
    print("b_out", g.d_b_out, S * O);
    print("inputs", g.d_inputs, S * B * T * I);
    print("h0", g.d_h0, S * B * H);
    if (cell == DTWIN_LSTM) print("c0", g.d_c0, S * B * H);
    release_vjp(whole);
    return 0;
}

static int numbers_of(int cell, int dtype, int weights, int projected) {
    dtwin_rollout_params p = problem(cell, dtype, weights, projected);
    const int status = dtwin_rollout(&p);
    if (status) {
        fprintf(stderr, "%s\n", dtwin_strerror(status));
        return 2;
    }
    print("outputs", p.outputs, (size_t)(S * B * (projected ? K : T) * O));
    print("states", p.states, S * B * T * H);
    print("h_final", p.h_final, S * B * H);
    if (cell == DTWIN_LSTM) print("c_final", p.c_final, S * B * H);
    printf("diverged %d %d %d\n", p.diverged[0], p.diverged[1], p.diverged[2]);
    release(p);
    return 0;
}

/* Addresses 2^59 bytes apart, so that enormous arrays do not overlap; never to be read. */
static void *address(int n) { return (void *)((uintptr_t)n << 59); }

static void scatter(dtwin_rollout_params *p) {
    p->w_ih = address(1);
    p->w_hh = address(2); /* 2^60 bytes */
    p->b_ih = address(5);
    p->b_hh = address(6);
    p->w_out = address(7);
    p->b_out = address(8);
    p->inputs = address(9);
    p->h0 = address(10);
    p->c0 = address(11);
    p->outputs = address(12);
    p->h_final = address(13);
    p->c_final = address(14);
}

static void scatter_vjp(dtwin_rollout_vjp_params *g) {
    scatter(&g->rollout);
    g->d_w_hh = address(16); /* 3 * 2^60 bytes */
    g->d_outputs = address(22);
    g->d_w_ih = address(23);
    g->d_b_ih = address(24);
    g->d_b_hh = address(25);
    g->d_w_out = address(26);
    g->d_inputs = address(27);
    g->d_h0 = address(28);
    g->d_c0 = address(29);
}

/* Each misuse starts from a good problem; the results must stay as they were. */
#define MISUSE(name, change)                                                            \
    do {                                                                                \
        dtwin_rollout_params good = problem(DTWIN_LSTM, DTWIN_FLOAT32, 0, 0), p = good; \
        int status;                                                                     \
        change;                                                                         \
        status = dtwin_rollout(&p);                                                     \
        printf("%s %d %d %s\n", name, status, good.diverged[0] == 7, dtwin_strerror(status)); \
        release(good);                                                                  \
    } while (0)

static int misuses(void) {
    const int64_t huge = (int64_t)1 << 62;
    MISUSE("version", p.struct_size -= 8);
    MISUSE("cell", p.cell = 3);
    MISUSE("negative_cell", p.cell = -1);
    MISUSE("dtype", p.dtype = 2);
    MISUSE("weights", p.weights = 2);
    MISUSE("bfloat16_of_doubles", (p.dtype = DTWIN_FLOAT64, p.weights = DTWIN_WEIGHTS_BFLOAT16));
    MISUSE("threads", p.n_threads = -1);
    MISUSE("many_threads", p.n_threads = DTWIN_MAX_THREADS + 1);
    MISUSE("negative_subjects", p.n_subjects = -1);
    MISUSE("no_sequences", p.n_sequences = 0);
    MISUSE("no_steps", p.n_steps = 0);
    MISUSE("negative_inputs", p.n_inputs = -5);
    MISUSE("no_hidden", p.n_hidden = 0);
    MISUSE("no_outputs", p.n_outputs = 0);
    MISUSE("negative_stride", p.w_hh_stride = -1);
    MISUSE("negative_input_stride", p.inputs_subject_stride = -1);
    MISUSE("huge_hidden", p.n_hidden = huge);
    MISUSE("huge_hidden_square", p.n_hidden = (int64_t)1 << 31);
    MISUSE("huge_subjects", p.n_subjects = huge);
    MISUSE("huge_sequences", p.n_sequences = huge);
    MISUSE("huge_steps", p.n_steps = huge);
    MISUSE("huge_outputs", p.n_outputs = huge);
    MISUSE("huge_inputs", p.n_inputs = huge);
    MISUSE("huge_stride", p.w_ih_stride = huge);
    MISUSE("huge_projection", (p.projection = p.inputs, p.n_projected = huge));
    MISUSE("no_w_hh", p.w_hh = NULL);
    MISUSE("no_inputs", p.inputs = NULL);
    MISUSE("no_outputs_array", p.outputs = NULL);
    MISUSE("no_h_final", p.h_final = NULL);
    MISUSE("no_c_final", p.c_final = NULL);
    MISUSE("no_diverged", p.diverged = NULL);
    MISUSE("no_projection", p.n_projected = 2);
    MISUSE("empty_projection", p.projection = p.inputs);
    MISUSE("misaligned", p.w_hh = (const char *)p.w_hh + 1);
    MISUSE("outputs_at_the_end_of_memory", p.outputs = (void *)(UINTPTR_MAX - 63));
    MISUSE("outputs_over_inputs", p.outputs = (void *)p.inputs);
    MISUSE("outputs_over_weights", p.outputs = (float *)p.w_hh + S * 4 * H * H - 1);
    MISUSE("outputs_over_gaps", (p.w_out_stride = 4096, p.outputs = (float *)p.w_out + 2048));
    MISUSE("outputs_over_projection", (p.projection = p.outputs, p.n_projected = 2));
    MISUSE("h_final_over_h0", p.h_final = (void *)p.h0);
    MISUSE("c_final_over_c0", p.c_final = (float *)p.c0 + 1);
    MISUSE("states_over_outputs", p.states = (float *)p.outputs + S * B * T * O - 1);
    MISUSE("h_final_is_c_final", p.h_final = p.c_final);
    MISUSE("diverged_in_states", p.diverged = (uint8_t *)p.states + 1);
    MISUSE("workspace", (p.n_hidden = (int64_t)1 << 28, p.states = NULL, scatter(&p)));
    MISUSE("no_subjects", p.n_subjects = 0);
    printf("null %d 1 %s\n", dtwin_rollout(NULL), dtwin_strerror(DTWIN_ERROR_NULL));
    printf("unknown 0 1 %s\n", dtwin_strerror(12345));
    return 0;
}

/* The same for the gradients; d_b_out must stay as it was. */
#define VJP_MISUSE(name, change)                                                         \
    do {                                                                                 \
        dtwin_rollout_vjp_params good = vjp_problem(DTWIN_LSTM, DTWIN_FLOAT32, 0, 0, 0), p = good; \
        const double before = get(good.d_b_out, 0);                                      \
        int status;                                                                      \
        change;                                                                          \
        status = dtwin_rollout_vjp(&p);                                                  \
        printf("%s %d %d %s\n", name, status, get(good.d_b_out, 0) == before,            \
               dtwin_strerror(status));                                                  \
        release_vjp(good);                                                               \
    } while (0)

static int vjp_misuses(void) {
    const int64_t huge = (int64_t)1 << 62;
    VJP_MISUSE("version", p.struct_size -= 8);
    VJP_MISUSE("inner_version", p.rollout.struct_size -= 8);
    VJP_MISUSE("cell", p.rollout.cell = 3);
    VJP_MISUSE("dtype", p.rollout.dtype = 2);
    VJP_MISUSE("threads", p.rollout.n_threads = -1);
    VJP_MISUSE("no_steps", p.rollout.n_steps = 0);
    VJP_MISUSE("negative_stride", p.rollout.w_hh_stride = -1);
    VJP_MISUSE("huge_hidden", p.rollout.n_hidden = huge);
    VJP_MISUSE("huge_subjects", p.rollout.n_subjects = huge);
    VJP_MISUSE("huge_steps", p.rollout.n_steps = huge);
    /* Repeated weights fit where the gradients of all subjects do not. */
    VJP_MISUSE("huge_gradients", (p.rollout.n_subjects = (int64_t)1 << 32,
                                  p.rollout.w_hh_stride = p.rollout.w_ih_stride = 0,
                                  p.rollout.b_hh_stride = p.rollout.b_ih_stride = 0,
                                  p.rollout.n_hidden = (int64_t)1 << 15));
    VJP_MISUSE("huge_input_gradients", (p.rollout.n_subjects = (int64_t)1 << 32,
                                        p.rollout.w_ih_stride = 0,
                                        p.rollout.n_inputs = (int64_t)1 << 28));
    VJP_MISUSE("no_w_hh", p.rollout.w_hh = NULL);
    VJP_MISUSE("no_d_outputs", p.d_outputs = NULL);
    VJP_MISUSE("no_d_w_ih", p.d_w_ih = NULL);
    VJP_MISUSE("no_d_w_hh", p.d_w_hh = NULL);
    VJP_MISUSE("no_d_b_ih", p.d_b_ih = NULL);
    VJP_MISUSE("no_d_b_hh", p.d_b_hh = NULL);
    VJP_MISUSE("no_d_w_out", p.d_w_out = NULL);
    VJP_MISUSE("no_d_b_out", p.d_b_out = NULL);
    VJP_MISUSE("no_d_inputs", p.d_inputs = NULL);
    VJP_MISUSE("no_d_h0", p.d_h0 = NULL);
    VJP_MISUSE("no_d_c0", p.d_c0 = NULL);
    VJP_MISUSE("misaligned", p.d_w_hh = (char *)p.d_w_hh + 1);
    VJP_MISUSE("misaligned_states", p.states = (const char *)p.rollout.inputs + 1);
    VJP_MISUSE("d_h0_over_d_h_final", p.d_h_final = p.d_h0);
    VJP_MISUSE("d_c0_over_d_c_final", p.d_c_final = p.d_c0);
    VJP_MISUSE("d_w_out_over_states", p.states = p.d_w_out);
    VJP_MISUSE("d_inputs_over_d_states", p.d_states = p.d_inputs);
    VJP_MISUSE("d_outputs_over_result", p.d_w_ih = (void *)p.d_outputs);
    VJP_MISUSE("d_inputs_over_inputs", p.d_inputs = (void *)p.rollout.inputs);
    VJP_MISUSE("d_w_hh_over_w_hh", p.d_w_hh = (float *)p.rollout.w_hh + S * 4 * H * H - 1);
    VJP_MISUSE("d_b_ih_is_d_b_hh", p.d_b_ih = p.d_b_hh);
    VJP_MISUSE("d_h0_over_d_c0", p.d_h0 = (float *)p.d_c0 + S * B * H - 1);
    VJP_MISUSE("d_c0_over_c0", p.d_c0 = (void *)p.rollout.c0);
    VJP_MISUSE("d_b_out_at_the_end_of_memory", p.d_b_out = (void *)(UINTPTR_MAX - 3));
    VJP_MISUSE("workspace", (p.rollout.n_hidden = (int64_t)1 << 28, scatter_vjp(&p)));
    VJP_MISUSE("no_subjects", p.rollout.n_subjects = 0);
    printf("null %d 1 %s\n", dtwin_rollout_vjp(NULL), dtwin_strerror(DTWIN_ERROR_NULL));
    return 0;
}

enum { ROWS = 5, IN = 131, OUT = 67 };

static dtwin_affine_params layer(int back) {
    dtwin_affine_params p;
    real_size = 4;
    memset(&p, 0, sizeof p);
    p.struct_size = sizeof p;
    p.n_threads = 2;
    p.n_rows = ROWS;
    p.n_in = IN;
    p.n_out = OUT;
    p.weight = (const float *)numbers(OUT * IN, 1);
    p.bias = back ? NULL : (const float *)numbers(OUT, 2);
    p.x = (const float *)numbers(ROWS * (back ? OUT : IN), 3);
    p.y = (float *)numbers(ROWS * (back ? IN : OUT), 0);
    return p;
}

static void release_layer(dtwin_affine_params p) {
    free((void *)p.weight);
    free((void *)p.bias);
    free((void *)p.x);
    free(p.y);
}

static int layer_of(int back) {
    dtwin_affine_params p = layer(back);
    const int status = back ? dtwin_affine_vjp(&p) : dtwin_affine(&p);
    print("y", p.y, (size_t)(ROWS * (back ? IN : OUT)));
    release_layer(p);
    return status;
}

#define LAYER_MISUSE(name, change)                                                     \
    do {                                                                               \
        dtwin_affine_params good = layer(0), p = good;                                 \
        float *before = (float *)numbers(ROWS * OUT, 0);                                \
        int status;                                                                    \
        change;                                                                        \
        status = dtwin_affine(&p);                                                     \
        printf("%s %d %d %s\n", name, status, !memcmp(before, good.y, ROWS * OUT * 4), \
               dtwin_strerror(status));                                                \
        free(before);                                                                  \
        release_layer(good);                                                           \
    } while (0)

static int layer_misuses(void) {
    const int64_t huge = (int64_t)1 << 62;
    LAYER_MISUSE("version", p.struct_size -= 8);
    LAYER_MISUSE("threads", p.n_threads = -1);
    LAYER_MISUSE("negative_rows", p.n_rows = -1);
    LAYER_MISUSE("no_in", p.n_in = 0);
    LAYER_MISUSE("negative_out", p.n_out = -1);
    LAYER_MISUSE("huge_in", p.n_in = huge);
    LAYER_MISUSE("huge_rows", p.n_rows = huge);
    LAYER_MISUSE("no_weight", p.weight = NULL);
    LAYER_MISUSE("no_bias", p.bias = NULL);
    LAYER_MISUSE("no_x", p.x = NULL);
    LAYER_MISUSE("no_y", p.y = NULL);
    LAYER_MISUSE("misaligned", p.x = (const float *)((const char*)p.x + 1));
    LAYER_MISUSE("y_over_x", p.y = (float *)p.x);
    LAYER_MISUSE("y_over_weight", p.y = (float *)p.weight + OUT * IN - 1);
    LAYER_MISUSE("y_over_bias", p.y = (float *)p.bias);
    LAYER_MISUSE("no_rows", p.n_rows = 0);
    printf("null %d 1 %s\n", dtwin_affine(NULL), dtwin_strerror(DTWIN_ERROR_NULL));
    return 0;
}

int main(int argc, char **argv) {
    if (argc == 2 && !strcmp(argv[1], "isa")) return printf("%s\n", dtwin_isa()) < 0;
    if (argc == 2 && !strcmp(argv[1], "misuses")) return misuses();
    if (argc == 2 && !strcmp(argv[1], "vjp_misuses")) return vjp_misuses();
    if (argc == 2 && !strcmp(argv[1], "layer_misuses")) return layer_misuses();
    if (argc == 3) return layer_of(atoi(argv[2]));
    if (argc == 7) {
        return vjp_of(atoi(argv[2]), atoi(argv[3]), atoi(argv[4]), atoi(argv[5]), atoi(argv[6]));
    }
    if (argc == 5) return numbers_of(atoi(argv[1]), atoi(argv[2]), atoi(argv[3]), atoi(argv[4]));
    return 1;
}
