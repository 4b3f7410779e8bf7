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

/* From an open model: tokenizer.json, tokenizer_config.json, special_tokens_map.json and
 * chat_template.jinja in its directory, or the metadata of its GGUF. bos and eos that these do not
 * name are the model config's. Nothing of `file` is held afterwards.
 *
 * Errors: FC_ERR_INPUT for files that contradict themselves (ids twice or out of range, merges of
 * unknown tokens, above 64 MiB), FC_ERR_UNSUPPORTED for a part that this build does not have, by
 * its name in tokenizer.json or in tokenizer.ggml.pre. */
enum fc_code fc_tokenizer_open(struct fc_tokenizer **tok, const struct fc_model_file *file,
                               struct fc_error *err);
/* From a tokenizer.json alone (tests, tools). */
enum fc_code fc_tokenizer_open_json(struct fc_tokenizer **tok, const char *path,
                                    struct fc_error *err);
void fc_tokenizer_close(struct fc_tokenizer *tok); /* NULL is fine */

size_t fc_tokenizer_size(const struct fc_tokenizer *tok); /* ids are 0 .. size-1 */

/* How text that looks like a special token is taken. FC_TEXT: as plain text, always right for text
 * from users; it never gives a special token, but for the unknown token where a vocabulary has no
 * other way to write a character. FC_MARKUP: special tokens are recognised, for templates of our
 * own. Added tokens that are not special (runs of spaces, say) are part of the vocabulary and
 * recognised in both. In the words of `tokenizers`: encode_special_tokens is true for FC_TEXT. */
enum fc_text_kind { FC_TEXT, FC_MARKUP };

/* Appends the tokens of len bytes (any bytes: invalid UTF-8 becomes U+FFFD as `tokenizers` sees it
 * after a lossy decode) to out. No BOS is added: see fc_tokenizer_bos. O(len log len) at worst.
 * FC_ERR_UNSUPPORTED above 1 GiB. On error out may hold a part of the tokens. */
enum fc_code fc_tokenizer_encode(const struct fc_tokenizer *tok, const char *text, size_t len,
                                 enum fc_text_kind kind, struct fc_tokens *out,
                                 struct fc_error *err);

/* Appends the text of n tokens to out. Special tokens are left out unless `special`. Equals
 * `tokenizers`' decode(skip_special_tokens = !special). */
enum fc_code fc_tokenizer_decode(const struct fc_tokenizer *tok, const int32_t *ids, size_t n,
                                 bool special, struct fc_text *out, struct fc_error *err);

/* Streaming decode: appends to out what became certain with this token, never a part of a UTF-8
 * character. Special tokens are left out. Zero-initialise the state; finish with fc_decode_flush,
 * which emits U+FFFD for a truncated character and empties the state for a new text. The
 * concatenation equals fc_tokenizer_decode, which is made of the same steps.
 *
 * With byte fallback, `tokenizers` takes a run of byte tokens as a whole: UTF-8, or one U+FFFD for
 * each byte. So a run is held back until a token of another kind ends it, a byte shows that it is
 * no UTF-8, or FC_DECODE_RUN bytes are there; only a run longer than that with an error behind them
 * decodes differently from `tokenizers` (its good beginning stays). The fields are private. */
#define FC_DECODE_RUN 248
struct fc_decode_state {
    char pending[FC_DECODE_RUN];
    size_t n_pending;
    bool started;  /* the first token was seen */
    bool is_run;   /* pending holds byte-fallback tokens */
    bool bad_run;  /* the run was found to be no UTF-8 */
    unsigned left; /* spaces still to be stripped from the front */
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
