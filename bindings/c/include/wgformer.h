/*
 * wgformer for C: transformers on any vendor's GPU. The guide is docs/guide/c.md.
 *
 * Errors. A function that returns wgf_status returns WGF_OK or the kind of its error, and wgf_last_error() has the
 * error's text, which says what, where and what to do. Null pointers and texts that are not UTF-8 are errors; a defect
 * of the engine is one as well and ends nothing. What a function gives back by a pointer is null after an error.
 *
 * Texts are UTF-8 and end with a zero. A text that the library gives back by char ** is freed by wgf_text_free. What is
 * returned as const char * belongs to its handle and lives as long.
 *
 * Threads. Any thread may use any handle. Calls with one model wait for one another; several models work at a time. A
 * handle is freed once, when no thread uses it any more. wgf_last_error() is that of the calling thread. Callbacks are
 * called by the thread that made the call; they may use other models, but not the one that answers, which is an error.
 *
 * Structs begin with their size, which the macros ending in _INIT set, so that later versions may add fields:
 *     wgf_generate_options options = WGF_GENERATE_OPTIONS_INIT;
 * Options may be null, for those of _INIT.
 */
#ifndef WGFORMER_H
#define WGFORMER_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

/* The kind of an error. Later versions may have more. */
typedef int32_t wgf_status;

#define WGF_OK 0
/* An argument that is not valid. */
#define WGF_ERROR_INPUT 1
/* A file that could not be read or written. */
#define WGF_ERROR_FILE 2
/* A file whose content is not valid. */
#define WGF_ERROR_FORMAT 3
/* No adapter fits the request: the text lists those that are there. */
#define WGF_ERROR_NO_ADAPTER 4
/* The adapter lacks a feature or a limit. */
#define WGF_ERROR_UNSUPPORTED 5
/* The GPU has not enough memory. */
#define WGF_ERROR_OUT_OF_MEMORY 6
/* The GPU went away: free what is on it and open it again. */
#define WGF_ERROR_DEVICE_LOST 7
/* A number is NaN or infinite. */
#define WGF_ERROR_NON_FINITE 8
/* A defect of the engine. */
#define WGF_ERROR_INTERNAL 9
/* A pointer that must not be null is null. */
#define WGF_ERROR_NULL 20
/* A text is not UTF-8. */
#define WGF_ERROR_UTF8 21
/* The caller's memory is too small: the count, where there is one, says what is needed. */
#define WGF_ERROR_TOO_SMALL 22
/* A defect of the engine that it could not go on after. The model of the call cannot be used any more. */
#define WGF_ERROR_PANIC 23

/* The text of this thread's last error, until its next; empty before the first. */
const char *wgf_last_error(void);
/* The version of the library, as "0.1.0". */
const char *wgf_version(void);
/* Frees a text that the library gave. */
void wgf_text_free(char *text);

/* ---- GPUs ---- */

typedef struct wgf_gpu wgf_gpu;

/* The adapters of this machine, a line each. */
wgf_status wgf_adapters(char **text);
/* Opens an adapter by its number, its backend ("vulkan"), a part of its name, or both ("gl:llvmpipe"). Null: what the
 * environment variable WGFORMER_ADAPTER names, else the best. */
wgf_status wgf_gpu_open(const char *adapter, wgf_gpu **gpu);
/* The name of a GPU and its backend; null for null. */
const char *wgf_gpu_name(const wgf_gpu *gpu);
/* Frees a GPU; models on it go on. */
void wgf_gpu_free(wgf_gpu *gpu);

/* ---- Models ---- */

typedef struct wgf_model wgf_model;

typedef struct wgf_load_options {
    size_t size;
    /* The type of the matrices in GPU memory: "f32", "f16", "bf16", or one of blocks, such as "q8_0" or "q4_k". Null:
     * each as the file has it. Training needs the first three. */
    const char *dtype;
    /* The type of the caches of keys and values: "f32", "f16" or "q8_0". Null: "f32". */
    const char *cache;
    /* A folder with a tokenizer, or its file, in place of the model's. Null: the model's. */
    const char *tokenizer;
    /* The most tokens of a text with its answer; 0: as many as the model has positions. */
    size_t context;
} wgf_load_options;

#define WGF_LOAD_OPTIONS_INIT {sizeof(wgf_load_options), NULL, NULL, NULL, 0}

/* Loads a folder as Hugging Face has it, or a GGUF file. */
wgf_status wgf_model_load(const wgf_gpu *gpu, const char *path, const wgf_load_options *options, wgf_model **model);
/* Makes a model of a config.json, given as its text, with weights by a seed. */
wgf_status wgf_model_new(const wgf_gpu *gpu, const char *config, uint64_t seed, const wgf_load_options *options,
                         wgf_model **model);

typedef struct wgf_model_info {
    size_t size;
    /* Values that are trained. */
    uint64_t parameters;
    /* Tokens of the vocabulary. */
    size_t vocabulary;
    /* The most tokens of a text with its answer. */
    size_t context;
    /* Features of a hidden state, and numbers of a text's vector. */
    size_t width;
    size_t layers;
    /* 1 or 0: whether it continues texts, makes vectors of them, has a tokenizer, has a template for conversations. */
    int32_t generates;
    int32_t embeds;
    int32_t has_tokenizer;
    int32_t chats;
} wgf_model_info;

#define WGF_MODEL_INFO_INIT {sizeof(wgf_model_info), 0, 0, 0, 0, 0, 0, 0, 0, 0}

/* What a model is. */
wgf_status wgf_model_get_info(const wgf_model *model, wgf_model_info *info);
/* Its model_type, such as "llama"; null for null. */
const char *wgf_model_family(const wgf_model *model);
/* Saves a folder as Hugging Face has it: configuration, weights, tokenizer. */
wgf_status wgf_model_save(const wgf_model *model, const char *path);
/* Frees a model. */
void wgf_model_free(wgf_model *model);

/* ---- Texts ---- */

/* The tokens of a text, with those that the model wants around it. There may be up to capacity, and count (or null) is
 * how many there are, also where they are too many. */
wgf_status wgf_tokenize(const wgf_model *model, const char *text, uint32_t *ids, size_t capacity, size_t *count);
/* The text of tokens, without special ones. */
wgf_status wgf_detokenize(const wgf_model *model, const uint32_t *ids, size_t count, char **text);

/* Is told each token as it comes, with the text that became certain with it. Anything but 0 ends the answer. No
 * exception may leave it. */
typedef int32_t (*wgf_on_token)(void *user, uint32_t id, const char *text);

typedef struct wgf_generate_options {
    size_t size;
    /* The most tokens of an answer; 0: as the model's files say, else 128. */
    size_t max_tokens;
    /* The same seed gives the same answer. */
    uint64_t seed;
    /* The divisor of logits; 0: greedy. Of this and the next four, what is less than 0 is as the model's files say, and
     * greedy where they say nothing. */
    float temperature;
    /* Draw from the likeliest tokens with this probability together; 1: all. */
    float top_p;
    /* Draw from tokens with at least this share of the likeliest's probability; 0: all. */
    float min_p;
    /* Tokens that occurred are less likely; 1: as likely as before. */
    float repetition_penalty;
    /* Draw from so many of the likeliest tokens; 0: all. */
    int64_t top_k;
    /* Texts that end an answer, which has none of them. */
    const char *const *stop;
    size_t stop_count;
    /* Null, or what is told each token, with user. */
    wgf_on_token on_token;
    void *user;
} wgf_generate_options;

#define WGF_GENERATE_OPTIONS_INIT \
    {sizeof(wgf_generate_options), 0, 0, -1.0f, -1.0f, -1.0f, -1.0f, -1, NULL, 0, NULL, NULL}

typedef struct wgf_message {
    /* "system", "user" or "assistant". */
    const char *role;
    const char *content;
} wgf_message;

typedef struct wgf_answer wgf_answer;

/* Goes on from a text. */
wgf_status wgf_generate(const wgf_model *model, const char *prompt, const wgf_generate_options *options,
                        wgf_answer **answer);
/* Goes on from tokens. */
wgf_status wgf_generate_tokens(const wgf_model *model, const uint32_t *ids, size_t count,
                               const wgf_generate_options *options, wgf_answer **answer);
/* Answers a conversation in the model's template. */
wgf_status wgf_chat(const wgf_model *model, const wgf_message *messages, size_t count,
                    const wgf_generate_options *options, wgf_answer **answer);

/* The new text; null for null and for a model without a tokenizer. */
const char *wgf_answer_text(const wgf_answer *answer);
/* The new tokens, with one that ends the answer, and their count (or null). */
const uint32_t *wgf_answer_tokens(const wgf_answer *answer, size_t *count);
/* Why it ended: "end" (an end token), "stop" (a text of stop), "length" (max_tokens), "context" (no position is left) or
 * "broken_off" (by on_token); null for null. */
const char *wgf_answer_finish(const wgf_answer *answer);
/* Frees an answer. */
void wgf_answer_free(wgf_answer *answer);

/* ---- Numbers ---- */

/* The vectors of count texts into vectors, (count, width), of capacity numbers: pooled and scaled as the model's files
 * say. */
wgf_status wgf_embed(const wgf_model *model, const char *const *texts, size_t count, float *vectors, size_t capacity);

typedef struct wgf_batch {
    size_t size;
    /* Token ids, (rows, length). */
    const uint32_t *ids;
    /* 0 on padding, else 1, (rows, length); null: there is no padding. Not for training. */
    const uint32_t *mask;
    /* The part of the text that each token belongs to, (rows, length), for encoders; null: the first. */
    const uint32_t *types;
    size_t rows;
    size_t length;
} wgf_batch;

#define WGF_BATCH_INIT {sizeof(wgf_batch), NULL, NULL, NULL, 0, 0}

/* Of a decoder, or an encoder that predicts tokens, the logits (rows, length, vocabulary); of one with classes those of
 * the classes; of one without a head the states (rows, length, width). There may be up to capacity, and count (or null)
 * is how many there are, also where they are too many. */
wgf_status wgf_forward(const wgf_model *model, const wgf_batch *batch, float *values, size_t capacity, size_t *count);
/* The mean cross-entropy of a decoder, in nats. labels are (rows, length), as in PyTorch's transformers: that of a token
 * is what the tokens in front are to predict there, and a negative one does not count. Null: the tokens themselves. */
wgf_status wgf_loss(const wgf_model *model, const wgf_batch *batch, const int32_t *labels, float *loss);

/* ---- Training ---- */

typedef struct wgf_train_options {
    size_t size;
    /* The seed of dropout. */
    uint64_t seed;
    /* Of AdamW. Of this and the next four, what is less than 0 is the engine's own: 0.9, 0.95, 1e-8, 0.1 and 1. */
    double beta1;
    double beta2;
    float epsilon;
    float weight_decay;
    /* Gradients are clipped to this norm; 0: they are not. */
    float max_norm;
    /* Batches are cut into so many parts of whole rows, one after another, with the gradients of the whole. */
    uint32_t accumulation;
    /* 1: blocks are computed again in the backward pass, for less memory. */
    int32_t recompute;
} wgf_train_options;

#define WGF_TRAIN_OPTIONS_INIT {sizeof(wgf_train_options), 0, -1.0, -1.0, -1.0f, -1.0f, -1.0f, 1, 0}

typedef struct wgf_step {
    size_t size;
    /* Its number, from 1. */
    uint64_t step;
    /* The loss before the step. */
    float loss;
    /* The norm of the gradients before they were clipped. */
    float norm;
    /* 1: gradients were not finite, and the weights are as before. */
    int32_t skipped;
} wgf_step;

#define WGF_STEP_INIT {sizeof(wgf_step), 0, 0.0f, 0.0f, 0}

/* Sets the options of training, before the first step. Without, those of _INIT hold. */
wgf_status wgf_train_begin(const wgf_model *model, const wgf_train_options *options);
/* One step of AdamW with this learning rate, on labels as wgf_loss takes them; step may be null. Afterwards the model
 * generates with the new weights. */
wgf_status wgf_train_step(const wgf_model *model, const wgf_batch *batch, const int32_t *labels, double learning_rate,
                          wgf_step *step);

#ifdef __cplusplus
}
#endif

#endif
