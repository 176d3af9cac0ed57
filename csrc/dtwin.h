/* dtwin_fast: the plain C interface of the compiled engine.
 *
 * dtwin_rollout() rolls S subjects' RNNs over their inputs, dtwin_rollout_vjp() computes the
 * gradients of that; dtwin_affine() and dtwin_affine_vjp() are a layer of the hypernetwork that
 * generates their weights; dtwin_model_load() and what follows it use a trained model. Letters: S
 * subjects, B sequences per subject, T steps, I inputs, H hidden units, G gates (rnn 1, gru 3, lstm
 * 4), O outputs, K rows of a time projection. Arrays are dense and row-major in their last axes;
 * square matrices are (to, from); gates are in torch's order (gru r,z,n; lstm i,f,g,o).
 *
 * A rollout has the same bits for any number of threads, any grouping of subjects and
 * sequences into calls, and any cut of T into calls that pass h_final on as h0. Gradients have
 * the same bits for any number of threads and any grouping of subjects into calls.
 *
 * Thread-safe: concurrent calls share nothing. No thread outlives a call.
 */
#ifndef DTWIN_H
#define DTWIN_H

#include <stddef.h>
#include <stdint.h>

#if defined(__GNUC__)
#define DTWIN_API __attribute__((visibility("default")))
#else
#define DTWIN_API
#endif

#ifdef __cplusplus
extern "C" {
#endif

typedef enum dtwin_cell { DTWIN_RNN = 0, DTWIN_GRU = 1, DTWIN_LSTM = 2 } dtwin_cell;

typedef enum dtwin_dtype { DTWIN_FLOAT32 = 0, DTWIN_FLOAT64 = 1 } dtwin_dtype;

/* How weights are kept for the time loop: in the arrays' dtype, or rounded to bfloat16 (to nearest,
 * ties to even), which halves what a step reads from cache. All arithmetic is in dtype. */
typedef enum dtwin_weights {
    DTWIN_WEIGHTS_FULL = 0,
    DTWIN_WEIGHTS_BFLOAT16 = 1 /* with DTWIN_FLOAT32 */
} dtwin_weights;

typedef enum dtwin_status {
    DTWIN_OK = 0,
    DTWIN_ERROR_VERSION = 1,   /* struct_size is not the size of the struct it is in */
    DTWIN_ERROR_CELL = 2,      /* cell is not a dtwin_cell */
    DTWIN_ERROR_DTYPE = 3,     /* dtype is not a dtwin_dtype */
    DTWIN_ERROR_SIZE = 4,      /* a size is negative, or zero where at least one is needed */
    DTWIN_ERROR_STRIDE = 5,    /* a stride is negative */
    DTWIN_ERROR_OVERFLOW = 6,  /* an array would be larger than the address space */
    DTWIN_ERROR_NULL = 7,      /* a required pointer is NULL */
    DTWIN_ERROR_ALIGNMENT = 8, /* a pointer is not aligned to its element type */
    DTWIN_ERROR_THREADS = 9,   /* n_threads is outside 0..DTWIN_MAX_THREADS */
    DTWIN_ERROR_MEMORY = 10,   /* the workspace could not be allocated */
    DTWIN_ERROR_ISA = 11,      /* DTWIN_ISA names an instruction set that cannot run here */
    DTWIN_ERROR_OVERLAP = 12,  /* a result shares memory with another array */
    DTWIN_ERROR_WEIGHTS = 13,  /* weights is not a dtwin_weights, or does not go with dtype */
    /* From the functions of dtwin_cuda.h; dtwin_cuda_message() says more. */
    DTWIN_ERROR_CUDA = 14,        /* there is no GPU that can run, or it failed */
    DTWIN_ERROR_UNSUPPORTED = 15, /* the GPU cannot run these sizes or this dtype */
    /* From the functions dtwin_model_...; dtwin_model_message() says more. */
    DTWIN_ERROR_MODEL = 16,  /* not a model folder, or one that cannot be used */
    DTWIN_ERROR_EDGES = 17,  /* a subject's edges are no connectome of this model */
    DTWIN_ERROR_TASK = 18,   /* not a task of this model, or one named twice */
    DTWIN_ERROR_CHOICE = 19, /* a value that is not of its enumeration */
    DTWIN_ERROR_HEAD = 20    /* this model's head has no gradients of behaviour */
} dtwin_status;

#define DTWIN_MAX_THREADS 1024

/* Zero it, set struct_size = sizeof(dtwin_rollout_params), fill in the rest.
 *
 * Pointers marked [dtype] hold floats or doubles as `dtype` says. Strides are in elements;
 * 0 repeats the same block along that axis. */
typedef struct dtwin_rollout_params {
    uint32_t struct_size;
    int32_t cell;      /* dtwin_cell */
    int32_t dtype;     /* dtwin_dtype */
    int32_t n_threads; /* 0 = one per hardware thread */
    int32_t weights;   /* dtwin_weights */

    int64_t n_subjects;  /* S >= 0; with 0 nothing is read or written */
    int64_t n_sequences; /* B >= 1 */
    int64_t n_steps;     /* T >= 1 */
    int64_t n_inputs;    /* I >= 1 */
    int64_t n_hidden;    /* H >= 1 */
    int64_t n_outputs;   /* O >= 1 */
    int64_t n_projected; /* K >= 1 with a projection, else 0 */

    /* Weights [dtype] and the elements from one subject's block to the next. */
    const void* w_ih;  /* S x [G*H, I] */
    const void* w_hh;  /* S x [G*H, H] */
    const void* b_ih;  /* S x [G*H] */
    const void* b_hh;  /* S x [G*H] */
    const void* w_out; /* S x [O, H] */
    const void* b_out; /* S x [O] */
    int64_t w_ih_stride;
    int64_t w_hh_stride;
    int64_t b_ih_stride;
    int64_t b_hh_stride;
    int64_t w_out_stride;
    int64_t b_out_stride;

    const void* inputs;                 /* [dtype] S x B x [T, I] */
    int64_t inputs_subject_stride;      /* 0 = every subject sees the same inputs */
    int64_t inputs_sequence_stride;     /* T*I where sequences follow each other */
    const void* h0;                     /* [dtype] [S, B, H]; NULL = zeros */
    const void* c0;                     /* [dtype] [S, B, H], lstm only; NULL = zeros */
    const void* projection;             /* [dtype] B x [K, T]; NULL = none */
    int64_t projection_sequence_stride; /* 0 = one projection for all sequences */

    /* Results, every element of which is written. None may overlap another array; a strided
     * array counts with its gaps. */
    void* outputs;     /* [dtype] [S, B, T, O], or [S, B, K, O] = projection @ outputs */
    void* states;      /* [dtype] [S, B, T, H]; NULL = not wanted */
    void* h_final;     /* [dtype] [S, B, H] */
    void* c_final;     /* [dtype] [S, B, H], lstm only; NULL for the other cells */
    uint8_t* diverged; /* [S]: 1 where a state or an output is NaN or infinite, else 0 */
} dtwin_rollout_params;

/* Run; returns a dtwin_status. Nothing is written unless it returns DTWIN_OK. */
DTWIN_API int dtwin_rollout(const dtwin_rollout_params* params);

/* Zero it, set struct_size = sizeof(dtwin_rollout_vjp_params), fill in the rest. All arrays here
 * are [dtype] and dense; every element of the results is written, and none may overlap another
 * array. */
typedef struct dtwin_rollout_vjp_params {
    uint32_t struct_size;
    dtwin_rollout_params rollout; /* the rollout, its own struct_size set; its results are not
                                     wanted and stay as they are, so leave them NULL */
    const void* states;           /* [S, B, T, H] what the rollout gave; NULL = rolled out again */

    /* Gradients of a loss. */
    const void* d_outputs; /* [S, B, T, O], with a projection [S, B, K, O] */
    const void* d_states;  /* [S, B, T, H]; NULL = zeros, as for the two that follow */
    const void* d_h_final; /* [S, B, H] */
    const void* d_c_final; /* [S, B, H], lstm only */

    /* Results: the loss's gradients of what the rollout reads. */
    void* d_w_ih;   /* [S, G*H, I] */
    void* d_w_hh;   /* [S, G*H, H] */
    void* d_b_ih;   /* [S, G*H] */
    void* d_b_hh;   /* [S, G*H] */
    void* d_w_out;  /* [S, O, H] */
    void* d_b_out;  /* [S, O] */
    void* d_inputs; /* [S, B, T, I]; where subjects share inputs, theirs is the sum over S */
    void* d_h0;     /* [S, B, H], also where h0 is NULL */
    void* d_c0;     /* [S, B, H], lstm only; NULL for the other cells */
} dtwin_rollout_vjp_params;

/* Run; returns a dtwin_status. Nothing is written unless it returns DTWIN_OK. A thread keeps
 * 64 MiB of steps; of longer sequences it keeps the states before segments of at least sqrt(T)
 * steps, and rolls each segment out a second time. */
DTWIN_API int dtwin_rollout_vjp(const dtwin_rollout_vjp_params* params);

/* A layer y = x w^T + b, as in torch.nn.Linear, in float32. Zero it, set struct_size =
 * sizeof(dtwin_affine_params), fill in the rest. Arrays are dense; y may not overlap another one. A
 * row of y has the same bits for any number of threads, and whatever rows stand beside it. */
typedef struct dtwin_affine_params {
    uint32_t struct_size;
    int32_t n_threads;   /* 0 = one per hardware thread */
    int64_t n_rows;      /* S >= 0; with 0 nothing is read or written */
    int64_t n_in;        /* >= 1 */
    int64_t n_out;       /* >= 1 */
    const float* weight; /* [n_out, n_in] */
    const float* bias;   /* [n_out]; not read on the way back */
    const float* x;      /* [S, n_in]; on the way back [S, n_out], gradients of the layer's y */
    float* y;            /* [S, n_out]; on the way back [S, n_in], gradients of the layer's x */
} dtwin_affine_params;

/* Run; returns a dtwin_status. Nothing is written unless it returns DTWIN_OK. */
DTWIN_API int dtwin_affine(const dtwin_affine_params* params);

/* The way back, y = x w. */
DTWIN_API int dtwin_affine_vjp(const dtwin_affine_params* params);

/* Models ------------------------------------------------------------------------------------
 *
 * A model folder (model.safetensors and config.json, as dtwin_fast's `dtwin train` and Twin.save
 * write it) turns a subject's connectome into the weights of an RNN of their own, and runs that
 * through tasks. More letters: R regions, E = R(R-1)/2 edges, P weights of a subject, N trials,
 * A actions, V volumes, Q BOLD regions. Arrays are dense float32, subjects first. Trials, volumes
 * and contrasts of several tasks follow each other in the order in which the tasks are named.
 *
 * A subject's results have the same bits whoever stands beside them, for any number of threads
 * and any max_bytes. Models do not change: any number of threads may use one at once. The
 * functions return a dtwin_status. They check everything that they are given before they compute,
 * and write nothing where that fails; after DTWIN_ERROR_MEMORY results are unfinished. */

typedef struct dtwin_model dtwin_model;

typedef enum dtwin_unit { DTWIN_PEARSON_R = 0, DTWIN_FISHER_Z = 1 } dtwin_unit;

/* What to do with a subject who lacks regions (NaN on all their edges): refuse the call, let the
 * missing edges add nothing and scale the others by E / E present, or take the training cohort's
 * mean for them. */
typedef enum dtwin_missing {
    DTWIN_MISSING_REJECT = 0,
    DTWIN_MISSING_MASK = 1,
    DTWIN_MISSING_IMPUTE = 2
} dtwin_missing;

/* How actions are read: competing risks at each step, or the highest of independent peaks. */
typedef enum dtwin_head { DTWIN_HAZARD = 0, DTWIN_SIGMOID = 1 } dtwin_head;

/* Load a model folder: DTWIN_ERROR_MODEL says that it is none, is damaged (its SHA-256 is
 * checked), or is of another version. Files are read once, must be regular files of the folder
 * itself (no symbolic links), and nothing is allocated that they are too small to fill. `*model`
 * is NULL on an error, and otherwise for dtwin_model_free(), which takes NULL too. */
DTWIN_API int dtwin_model_load(const char* folder, dtwin_model** model);
DTWIN_API void dtwin_model_free(dtwin_model* model);

/* What the last failed dtwin_model_ call of this thread was about: what is wrong, what was wanted,
 * what was found, and the way out. Never NULL; it stays until this thread's next such failure. */
DTWIN_API const char* dtwin_model_message(void);

/* Set struct_size = sizeof(dtwin_model_sizes); the rest is filled in. */
typedef struct dtwin_model_sizes {
    uint32_t struct_size;
    int32_t cell;           /* dtwin_cell */
    int32_t head;           /* dtwin_head */
    int64_t n_regions;      /* R */
    int64_t n_edges;        /* E */
    int64_t n_hidden;       /* H */
    int64_t n_inputs;       /* I */
    int64_t n_outputs;      /* O = A + Q */
    int64_t n_actions;      /* A */
    int64_t n_bold_regions; /* Q */
    int64_t n_weights;      /* P */
    int64_t n_tasks;
    double dt_s; /* a step, in seconds */
    double tr_s; /* a volume, in seconds */
} dtwin_model_sizes;
DTWIN_API int dtwin_model_get_sizes(const dtwin_model* model, dtwin_model_sizes* sizes);

/* The same of the model's task number `task`, from 0. */
typedef struct dtwin_task_sizes {
    uint32_t struct_size;
    int64_t n_steps;     /* T */
    int64_t n_trials;    /* N */
    int64_t n_volumes;   /* V */
    int64_t n_contrasts; /* K */
} dtwin_task_sizes;
DTWIN_API int dtwin_model_get_task_sizes(const dtwin_model* model, int64_t task,
                                         dtwin_task_sizes* sizes);

/* Names in UTF-8, which belong to the model; NULL where there is no such number. The SHA-256 is
 * that of the weights file. */
DTWIN_API const char* dtwin_model_region(const dtwin_model* model, int64_t region);
DTWIN_API const char* dtwin_model_bold_region(const dtwin_model* model, int64_t region);
DTWIN_API const char* dtwin_model_task(const dtwin_model* model, int64_t task);
DTWIN_API const char* dtwin_model_contrast(const dtwin_model* model, int64_t task,
                                           int64_t contrast);
DTWIN_API const char* dtwin_model_sha256(const dtwin_model* model);

/* Who a call is about. Zero it, set struct_size = sizeof(dtwin_people), fill in the rest. */
typedef struct dtwin_people {
    uint32_t struct_size;
    int32_t n_threads;  /* 0 = one per hardware thread */
    int32_t unit;       /* dtwin_unit of `edges` */
    int32_t missing;    /* dtwin_missing */
    int64_t n_subjects; /* S >= 0; with 0 nothing is read or written */
    int64_t max_bytes;  /* of weights and series in memory at once (one subject's at least); 0 =
                           256 MiB */
    const float* edges; /* [S, E] row-major upper triangles without the diagonal, regions in the
                           order of dtwin_model_region() */
} dtwin_people;

/* The weights of each subject's RNN, [S, P]: w_ih, w_hh, b_ih, b_hh, w_out, b_out one after the
 * other. dtwin_model_set_weights() points a rollout's parameters at them. */
DTWIN_API int dtwin_model_personalize(const dtwin_model* model, const dtwin_people* people,
                                      float* weights);

/* Fill in cell, dtype, n_subjects, n_inputs, n_hidden, n_outputs, the pointers to weights and
 * their strides of `params`, whose struct_size is set; the rest stays as it is. NULL weights of 0
 * subjects become NULL pointers. */
DTWIN_API int dtwin_model_set_weights(const dtwin_model* model, const float* weights,
                                      int64_t n_subjects, dtwin_rollout_params* params);

/* The inputs of a rollout through tasks, [B, T, I]: a sequence for each, with T steps of the
 * longest; shorter runs are padded at their end. n_tasks = 0 means all of the model's. */
DTWIN_API int dtwin_model_encode(const dtwin_model* model, int64_t n_tasks,
                                 const char* const* tasks, float* inputs);

/* Zero it, set struct_size = sizeof(dtwin_predictions), fill in the rest. Results that are NULL
 * are not wanted, and cost nothing. */
typedef struct dtwin_predictions {
    uint32_t struct_size;
    int64_t n_tasks;          /* 0 = all of the model's */
    const char* const* tasks; /* [n_tasks] names, none twice */
    float* choice_prob;       /* [S, N, A] with DTWIN_HAZARD the rest to 1 is no response; with
                                 DTWIN_SIGMOID they are shares */
    float* rt_s;              /* [S, N] mean reaction time in seconds, given a response */
    float* contrasts;         /* [S, K, Q]; alone they come without the series being made, by sums
                                 in another order (the last digits differ) */
    float* bold;              /* [S, V, Q] in SDs of the training cohort */
    uint8_t* diverged;        /* [S] 1 where the rollout left the finite numbers, else 0 */
} dtwin_predictions;
DTWIN_API int dtwin_model_predict(const dtwin_model* model, const dtwin_people* people,
                                  const dtwin_predictions* predictions);

/* Zero it, set struct_size = sizeof(dtwin_edge_gradients), fill in the rest. Gradients of a loss
 * with respect to predictions, NULL = zeros, in the shapes of dtwin_predictions. Those of
 * behaviour need DTWIN_HAZARD. */
typedef struct dtwin_edge_gradients {
    uint32_t struct_size;
    int64_t n_tasks;
    const char* const* tasks;
    const float* d_choice_prob;
    const float* d_rt_s;
    const float* d_contrasts;
    const float* d_bold;
    float* d_edges; /* [S, E] the loss's gradients, in the unit of the edges. An edge is one number:
                       both halves of a matrix move with it. 0 at missing regions and where |r| is
                       beyond 1 - 1e-6, which is read as that. */
} dtwin_edge_gradients;
DTWIN_API int dtwin_model_vjp(const dtwin_model* model, const dtwin_people* people,
                              const dtwin_edge_gradients* gradients);

/* One sentence for a status; never NULL, never to be freed. */
DTWIN_API const char* dtwin_strerror(int status);

/* The instruction set the engine runs on, chosen at the first call: "baseline", "avx2" or
   "avx512"; the environment variable DTWIN_ISA forces one. NULL when that cannot run here. */
DTWIN_API const char* dtwin_isa(void);

#ifdef __cplusplus
}
#endif

#endif /* DTWIN_H */
