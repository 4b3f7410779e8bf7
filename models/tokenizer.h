/* Tokenizers: byte-level BPE (GPT-2, SmolLM2, Llama 3, Qwen2 pre-split rules) and SentencePiece
 * style BPE with byte fallback (Llama 2, TinyLlama, Mistral), from tokenizer.json or from GGUF
 * metadata. Encoding equals Hugging Face's `tokenizers` on the same files.
 *
 * A tokenizer is immutable once open: any number of threads may use it at once. */
#ifndef FC_MODELS_TOKENIZER_H
#define FC_MODELS_TOKENIZER_H

#include "base/error.h"
#include "base/memory.h"
#include "models/model_file.h"

struct fc_tokenizer;

/* A growable list of token ids. Zero-initialise; free with fc_tokens_free. */
struct fc_tokens {
    int32_t *ids;
    size_t n, capacity;
};
enum fc_code fc_tokens_add(struct fc_tokens *t, int32_t id, struct fc_error *err);
void fc_tokens_free(struct fc_tokens *t);

/* From an open model: tokenizer.json (and tokenizer_config.json) in its directory, or the metadata
 * of its GGUF. */
enum fc_code fc_tokenizer_open(struct fc_tokenizer **tok, const struct fc_model_file *file,
                               struct fc_error *err);
/* From a tokenizer.json alone (tests, tools). */
enum fc_code fc_tokenizer_open_json(struct fc_tokenizer **tok, const char *path,
                                    struct fc_error *err);
void fc_tokenizer_close(struct fc_tokenizer *tok); /* NULL is fine */

size_t fc_tokenizer_size(const struct fc_tokenizer *tok); /* ids are 0 .. size-1 */

/* How text that looks like a special token is taken. FC_TEXT: as plain text, always right for text
 * from users. FC_MARKUP: special and added tokens are recognised, for templates of our own. */
enum fc_text_kind { FC_TEXT, FC_MARKUP };

/* Appends the tokens of len bytes (any bytes: invalid UTF-8 becomes U+FFFD as `tokenizers` sees it
 * after a lossy decode) to out. No BOS is added: see fc_tokenizer_bos. */
enum fc_code fc_tokenizer_encode(const struct fc_tokenizer *tok, const char *text, size_t len,
                                 enum fc_text_kind kind, struct fc_tokens *out,
                                 struct fc_error *err);

/* Appends the text of n tokens to out. Special tokens are left out unless `special`. Equals
 * `tokenizers`' decode(skip_special_tokens = !special). */
enum fc_code fc_tokenizer_decode(const struct fc_tokenizer *tok, const int32_t *ids, size_t n,
                                 bool special, struct fc_text *out, struct fc_error *err);

/* Streaming decode: appends to out what became certain with this token, never a part of a UTF-8
 * character. Zero-initialise the state; finish with fc_decode_flush, which emits U+FFFD for a
 * truncated character. The concatenation equals fc_tokenizer_decode. */
struct fc_decode_state {
    char pending[8];
    size_t n_pending;
    bool started;
};
enum fc_code fc_decode_next(const struct fc_tokenizer *tok, struct fc_decode_state *state,
                            int32_t id, struct fc_text *out, struct fc_error *err);
enum fc_code fc_decode_flush(struct fc_decode_state *state, struct fc_text *out,
                             struct fc_error *err);

/* The id of a token by its exact text ("<|im_end|>"), -1 if there is none. */
int32_t fc_tokenizer_id(const struct fc_tokenizer *tok, const char *text);
/* The token's own text as in the vocabulary (static for the tokenizer's life), NULL if unused. */
const char *fc_tokenizer_piece(const struct fc_tokenizer *tok, int32_t id);
bool fc_tokenizer_is_special(const struct fc_tokenizer *tok, int32_t id);
int32_t fc_tokenizer_bos(const struct fc_tokenizer *tok); /* -1: none */
int32_t fc_tokenizer_eos(const struct fc_tokenizer *tok); /* -1: none */
bool fc_tokenizer_adds_bos(const struct fc_tokenizer *tok);
/* The Jinja chat template of the model's files, NULL if there is none. */
const char *fc_tokenizer_chat_template(const struct fc_tokenizer *tok);

/* Writes tokenizer.json, tokenizer_config.json and special_tokens_map.json into a folder: a copy
 * of the source files, or made from the GGUF's metadata so that `transformers` tokenizes alike. */
enum fc_code fc_tokenizer_save(const struct fc_tokenizer *tok, const char *folder,
                               struct fc_error *err);

#endif
