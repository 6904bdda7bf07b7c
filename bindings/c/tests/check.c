/* What the header promises, against golden files: check FOLDER. The folder is made by c.rs beside this. */
#include "wgformer.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static int failures = 0;

static void expect(int holds, const char *what) {
    if (!holds) {
        printf("FAILED: %s (last error: %s)\n", what, wgf_last_error());
        failures++;
    }
}

static void must(wgf_status status, const char *what) {
    if (status != WGF_OK) {
        printf("FAILED: %s: error %d: %s\n", what, (int)status, wgf_last_error());
        exit(1);
    }
}

static void refused(wgf_status status, wgf_status wanted, const char *words, const char *what) {
    if (status != wanted || strstr(wgf_last_error(), words) == NULL) {
        printf("FAILED: %s: code %d with \"%s\", wanted %d with \"%s\"\n", what, (int)status, wgf_last_error(), (int)wanted,
               words);
        failures++;
    }
}

/* The numbers of a file of 32-bit words, and their count. */
static void *numbers(const char *folder, const char *name, size_t *count) {
    char path[4096];
    snprintf(path, sizeof path, "%s/%s", folder, name);
    FILE *file = fopen(path, "rb");
    if (file == NULL) {
        printf("FAILED: there is no %s\n", path);
        exit(1);
    }
    fseek(file, 0, SEEK_END);
    long size = ftell(file);
    rewind(file);
    void *bytes = malloc((size_t)size);
    if (bytes == NULL || fread(bytes, 1, (size_t)size, file) != (size_t)size) {
        exit(1);
    }
    fclose(file);
    *count = (size_t)size / 4;
    return bytes;
}

/* The largest error over the largest number; NaN never passes. */
static void near(const float *got, const float *wanted, size_t count, double limit, const char *what) {
    double error = 0.0, largest = 0.0;
    for (size_t i = 0; i < count; i++) {
        double difference = fabs((double)got[i] - (double)wanted[i]);
        error = difference <= error ? error : difference;
        largest = fmax(largest, fabs((double)wanted[i]));
    }
    if (!(error <= limit * largest) || !(largest > 0.0)) {
        printf("FAILED: %s: off by %g of %g\n", what, error, largest);
        failures++;
    }
}

struct seen {
    uint32_t tokens[64];
    char text[256];
    size_t count;
    size_t stop_behind;
    const wgf_model *model;
    wgf_status nested;
};

static int32_t watch(void *user, uint32_t id, const char *text) {
    struct seen *seen = user;
    seen->tokens[seen->count++] = id;
    strncat(seen->text, text, sizeof seen->text - strlen(seen->text) - 1);
    if (seen->model != NULL) {
        wgf_model_info info = WGF_MODEL_INFO_INIT;
        seen->nested = wgf_model_get_info(seen->model, &info);
    }
    return seen->count >= seen->stop_behind;
}

static void check_decoder(const wgf_gpu *gpu, const char *folder) {
    char path[4096];
    snprintf(path, sizeof path, "%s/decoder", folder);
    wgf_model *model = NULL;
    must(wgf_model_load(gpu, path, NULL, &model), "loading the decoder");
    wgf_model_info info = WGF_MODEL_INFO_INIT;
    must(wgf_model_get_info(model, &info), "what it is");
    expect(strcmp(wgf_model_family(model), "gpt2") == 0, "its family");
    expect(info.vocabulary == 97 && info.context == 64 && info.width == 48 && info.layers == 2, "its sizes");
    expect(info.generates == 1 && info.embeds == 0 && info.has_tokenizer == 1 && info.chats == 1, "what it does");

    /* Greedy tokens of the golden file. */
    size_t count = 0, prompt_count = 0, greedy_count = 0;
    uint32_t *prompt = numbers(folder, "prompt", &prompt_count);
    uint32_t *greedy = numbers(folder, "greedy", &greedy_count);
    wgf_generate_options options = WGF_GENERATE_OPTIONS_INIT;
    struct seen seen = {{0}, "", 0, 64, NULL, WGF_OK};
    options.max_tokens = greedy_count;
    options.on_token = watch;
    options.user = &seen;
    wgf_answer *answer = NULL;
    must(wgf_generate_tokens(model, prompt, prompt_count, &options, &answer), "greedy tokens");
    const uint32_t *tokens = wgf_answer_tokens(answer, &count);
    expect(count == greedy_count && memcmp(tokens, greedy, 4 * count) == 0, "the greedy tokens");
    expect(seen.count == count && memcmp(tokens, seen.tokens, 4 * count) == 0, "the tokens of the callback");
    expect(strcmp(wgf_answer_text(answer), seen.text) == 0 && seen.text[0] != 0, "the texts of the callback");
    wgf_answer_free(answer);

    /* A callback that stops, and one that calls its own model. */
    seen = (struct seen){{0}, "", 0, 3, model, WGF_OK};
    must(wgf_generate_tokens(model, prompt, prompt_count, &options, &answer), "an answer that is stopped");
    wgf_answer_tokens(answer, &count);
    expect(count == 3 && strcmp(wgf_answer_finish(answer), "broken_off") == 0, "the answer that was stopped");
    expect(seen.nested == WGF_ERROR_INPUT, "a callback that uses its model");
    wgf_answer_free(answer);

    /* Texts, sampling by seed, conversations. */
    uint32_t ids[16];
    must(wgf_tokenize(model, "0a!", ids, 16, &count), "tokens");
    expect(count == 3 && ids[0] == 0 && ids[1] == 10 && ids[2] == 62, "the tokens of a text");
    char *text = NULL;
    must(wgf_detokenize(model, ids, 3, &text), "a text of tokens");
    expect(strcmp(text, "0a!") == 0, "the text of tokens");
    wgf_text_free(text);
    refused(wgf_tokenize(model, "0a!", ids, 2, &count), WGF_ERROR_TOO_SMALL, "3 are needed", "too little memory");
    expect(count == 3, "the count that is needed");
    wgf_generate_options drawn = WGF_GENERATE_OPTIONS_INIT;
    drawn.max_tokens = 8;
    drawn.temperature = 1.0f;
    drawn.seed = 7;
    wgf_answer *again = NULL;
    must(wgf_generate(model, "0a!", &drawn, &answer), "a drawn answer");
    must(wgf_generate(model, "0a!", &drawn, &again), "the same again");
    expect(strcmp(wgf_answer_text(answer), wgf_answer_text(again)) == 0, "the same seed gives the same answer");
    wgf_answer_free(again);
    drawn.seed = 8;
    must(wgf_generate(model, "0a!", &drawn, &again), "another seed");
    expect(strcmp(wgf_answer_text(answer), wgf_answer_text(again)) != 0, "another seed gives another answer");
    wgf_answer_free(again);
    wgf_answer_free(answer);
    wgf_message messages[2] = {{"system", "be brief"}, {"user", "what is it?"}};
    must(wgf_chat(model, messages, 2, &drawn, &answer), "a conversation");
    must(wgf_generate(model, "<system>be brief<user>what is it?<assistant>", &drawn, &again), "the same by hand");
    expect(strcmp(wgf_answer_text(answer), wgf_answer_text(again)) == 0, "the template is the model's");
    wgf_answer_free(answer);
    wgf_answer_free(again);

    /* Logits and the loss of the golden file. */
    size_t logits_count = 0, loss_count = 0, ids_count = 0;
    uint32_t *golden_ids = numbers(folder, "ids", &ids_count);
    float *logits = numbers(folder, "logits", &logits_count);
    float *loss = numbers(folder, "loss", &loss_count);
    float *got = malloc(4 * logits_count), got_loss = NAN;
    wgf_batch batch = WGF_BATCH_INIT;
    batch.ids = golden_ids;
    batch.rows = 2;
    batch.length = ids_count / 2;
    must(wgf_forward(model, &batch, got, logits_count, &count), "logits");
    expect(count == logits_count, "the count of logits");
    near(got, logits, logits_count, 1e-4, "the logits");
    must(wgf_loss(model, &batch, NULL, &got_loss), "the loss");
    near(&got_loss, loss, 1, 1e-5, "the loss");
    refused(wgf_forward(model, &batch, got, 5, &count), WGF_ERROR_TOO_SMALL, "room for 5", "too little memory for logits");
    expect(count == logits_count, "the count of logits that is needed");

    /* Training: the loss falls, begins where it was, and what is saved has the new weights. */
    wgf_train_options train = WGF_TRAIN_OPTIONS_INIT;
    train.weight_decay = 0.0f;
    train.accumulation = 2;
    must(wgf_train_begin(model, &train), "options of training");
    wgf_step step = WGF_STEP_INIT;
    float first = NAN;
    for (int i = 0; i < 12; i++) {
        must(wgf_train_step(model, &batch, NULL, 0.01, &step), "a step");
        first = i == 0 ? step.loss : first;
    }
    near(&first, loss, 1, 1e-5, "the loss of the first step");
    expect(step.step == 12 && step.skipped == 0 && step.norm > 0.0f && step.loss < 0.8f * first, "the loss falls");
    refused(wgf_train_begin(model, &train), WGF_ERROR_INPUT, "trains already", "options behind the first step");
    must(wgf_loss(model, &batch, NULL, &got_loss), "the loss behind training");
    expect(got_loss < step.loss, "the weights are the new ones");
    snprintf(path, sizeof path, "%s/saved", folder);
    must(wgf_model_save(model, path), "saving");
    wgf_model *saved = NULL;
    must(wgf_model_load(gpu, path, NULL, &saved), "loading what was saved");
    float saved_loss = NAN;
    must(wgf_loss(saved, &batch, NULL, &saved_loss), "the loss of what was saved");
    near(&saved_loss, &got_loss, 1, 1e-6, "the loss of what was saved");
    must(wgf_tokenize(saved, "0a!", ids, 16, &count), "the tokenizer of what was saved");
    wgf_model_free(saved);

    /* Errors of batches. */
    batch.length = 65;
    refused(wgf_loss(model, &batch, NULL, &got_loss), WGF_ERROR_INPUT, "64 positions", "rows that are too long");
    batch.length = 1;
    refused(wgf_loss(model, &batch, NULL, &got_loss), WGF_ERROR_INPUT, "labels", "rows without a label");
    batch.rows = (size_t)-1;
    batch.length = 8;
    refused(wgf_loss(model, &batch, NULL, &got_loss), WGF_ERROR_INPUT, "more than memory", "too many rows");
    uint32_t unknown[2] = {3, 97};
    batch = (wgf_batch)WGF_BATCH_INIT;
    batch.ids = unknown;
    batch.rows = 1;
    batch.length = 2;
    refused(wgf_loss(model, &batch, NULL, &got_loss), WGF_ERROR_INPUT, "97", "an unknown token");
    batch.size = 4096;
    refused(wgf_loss(model, &batch, NULL, &got_loss), WGF_ERROR_INPUT, "size is 4096", "a struct of another header");
    const char *texts[1] = {"a"};
    refused(wgf_embed(model, texts, 1, got, logits_count), WGF_ERROR_INPUT, "continues texts", "vectors of a decoder");

    wgf_model_free(model);
    free(prompt);
    free(greedy);
    free(golden_ids);
    free(logits);
    free(loss);
    free(got);
}

static void check_encoder(const wgf_gpu *gpu, const char *folder) {
    char path[4096], texts_path[4096];
    snprintf(path, sizeof path, "%s/encoder", folder);
    snprintf(texts_path, sizeof texts_path, "%s/texts", folder);
    wgf_model *model = NULL;
    must(wgf_model_load(gpu, path, NULL, &model), "loading the encoder");
    wgf_model_info info = WGF_MODEL_INFO_INIT;
    must(wgf_model_get_info(model, &info), "what it is");
    expect(info.generates == 0 && info.embeds == 1, "what it does");

    char lines[4][256];
    const char *texts[4];
    size_t count = 0, wanted_count = 0;
    FILE *file = fopen(texts_path, "r");
    while (file != NULL && count < 4 && fgets(lines[count], sizeof lines[count], file) != NULL) {
        lines[count][strcspn(lines[count], "\n")] = 0;
        texts[count] = lines[count];
        count++;
    }
    expect(count > 1, "texts to embed");
    fclose(file);
    float *wanted = numbers(folder, "vectors", &wanted_count);
    float *vectors = malloc(4 * wanted_count);
    expect(wanted_count == count * info.width, "vectors for all texts");
    must(wgf_embed(model, texts, count, vectors, wanted_count), "vectors");
    near(vectors, wanted, wanted_count, 1e-4, "the vectors");
    refused(wgf_embed(model, texts, count, vectors, 1), WGF_ERROR_TOO_SMALL, "vectors", "too little memory for vectors");
    texts[1] = NULL;
    refused(wgf_embed(model, texts, count, vectors, wanted_count), WGF_ERROR_NULL, "a text", "a null text");
    wgf_answer *answer = NULL;
    refused(wgf_generate(model, "a", NULL, &answer), WGF_ERROR_INPUT, "does not continue", "an answer of an encoder");
    expect(answer == NULL, "nothing is given back");
    wgf_model_free(model);
    free(wanted);
    free(vectors);
}

static void check_errors(const wgf_gpu *gpu, const char *folder) {
    wgf_gpu *none = NULL;
    wgf_model *model = NULL;
    wgf_answer *answer = NULL;
    refused(wgf_gpu_open("no such adapter", &none), WGF_ERROR_NO_ADAPTER, "no such adapter", "a wrong adapter");
    refused(wgf_gpu_open("\xff\xfe", &none), WGF_ERROR_UTF8, "adapter", "a name that is not UTF-8");
    expect(none == NULL, "no GPU is given back");
    refused(wgf_gpu_open(NULL, NULL), WGF_ERROR_NULL, "gpu", "no place for a GPU");
    refused(wgf_model_load(gpu, "no/such/model", NULL, &model), WGF_ERROR_FORMAT, "no/such/model", "a missing model");
    refused(wgf_model_load(gpu, NULL, NULL, &model), WGF_ERROR_NULL, "path", "a null path");
    refused(wgf_model_load(NULL, folder, NULL, &model), WGF_ERROR_NULL, "gpu", "a null GPU");
    refused(wgf_model_load(gpu, "\xc3(", NULL, &model), WGF_ERROR_UTF8, "path", "a path that is not UTF-8");
    wgf_load_options options = WGF_LOAD_OPTIONS_INIT;
    options.dtype = "f8";
    refused(wgf_model_load(gpu, folder, &options, &model), WGF_ERROR_INPUT, "f16", "an unknown type");
    refused(wgf_model_new(gpu, "{", 0, NULL, &model), WGF_ERROR_INPUT, "JSON", "a configuration that is no JSON");
    refused(wgf_model_new(gpu, "{\"model_type\": \"mamba\"}", 0, NULL, &model), WGF_ERROR_FORMAT, "mamba", "a family");
    refused(wgf_generate(NULL, "a", NULL, &answer), WGF_ERROR_NULL, "model", "a null model");
    expect(model == NULL && answer == NULL, "nothing is given back");
    wgf_gpu_free(NULL);
    wgf_model_free(NULL);
    wgf_answer_free(NULL);
    wgf_text_free(NULL);
    expect(wgf_model_family(NULL) == NULL && wgf_gpu_name(NULL) == NULL, "names of nothing");
    expect(wgf_answer_text(NULL) == NULL && wgf_answer_finish(NULL) == NULL, "answers of nothing");
}

/* A model from nothing learns to repeat, without a tokenizer. */
static void check_new(const wgf_gpu *gpu) {
    const char *config = "{\"model_type\": \"gpt2\", \"architectures\": [\"GPT2LMHeadModel\"], \"vocab_size\": 16, "
                         "\"n_positions\": 32, \"n_embd\": 16, \"n_layer\": 1, \"n_head\": 2}";
    wgf_model *model = NULL;
    must(wgf_model_new(gpu, config, 1, NULL, &model), "a new model");
    uint32_t ids[32];
    for (uint32_t i = 0; i < 32; i++) {
        ids[i] = i % 4;
    }
    wgf_batch batch = WGF_BATCH_INIT;
    batch.ids = ids;
    batch.rows = 2;
    batch.length = 16;
    wgf_step step = WGF_STEP_INIT;
    for (int i = 0; i < 60; i++) {
        must(wgf_train_step(model, &batch, NULL, 0.02, &step), "a step from nothing");
    }
    expect(step.loss < 0.5f, "it learns from nothing");
    wgf_generate_options options = WGF_GENERATE_OPTIONS_INIT;
    options.max_tokens = 6;
    wgf_answer *answer = NULL;
    must(wgf_generate_tokens(model, ids, 4, &options, &answer), "what it learned");
    size_t count = 0;
    const uint32_t *tokens = wgf_answer_tokens(answer, &count);
    expect(count == 6 && memcmp(tokens, ids, 4 * 6) == 0, "it repeats");
    expect(wgf_answer_text(answer) == NULL, "there is no text without a tokenizer");
    wgf_answer_free(answer);
    refused(wgf_generate(model, "a", NULL, &answer), WGF_ERROR_INPUT, "tokenizer", "a text without a tokenizer");
    wgf_model_free(model);
}

int main(int count, char **arguments) {
    if (count != 2) {
        return 2;
    }
    char *adapters = NULL;
    must(wgf_adapters(&adapters), "adapters");
    expect(strlen(adapters) > 0 && strlen(wgf_version()) > 0 && wgf_last_error()[0] == 0, "adapters and a version");
    wgf_text_free(adapters);
    wgf_gpu *gpu = NULL;
    must(wgf_gpu_open(NULL, &gpu), "opening a GPU");
    printf("on %s\n", wgf_gpu_name(gpu));
    check_errors(gpu, arguments[1]);
    check_decoder(gpu, arguments[1]);
    check_encoder(gpu, arguments[1]);
    check_new(gpu);
    wgf_gpu_free(gpu);
    printf("%d failures\n", failures);
    return failures != 0;
}
