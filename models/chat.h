/* Chat prompts: messages -> tokens, in the format the model was trained on. */
#ifndef FC_MODELS_CHAT_H
#define FC_MODELS_CHAT_H

#include "models/tokenizer.h"

enum fc_chat_format { FC_CHAT_AUTO, FC_CHAT_CHATML, FC_CHAT_LLAMA2, FC_CHAT_LLAMA3, FC_CHAT_PLAIN };

enum fc_role { FC_ROLE_SYSTEM, FC_ROLE_USER, FC_ROLE_ASSISTANT };

struct fc_message {
    enum fc_role role;
    const char *content; /* bytes from a user: never becomes a special token */
    size_t len;
};

/* "auto", "chatml", "llama2", "llama3", "plain" -> format. FC_ERR_USAGE lists the names. */
enum fc_code fc_chat_format_parse(const char *name, enum fc_chat_format *format,
                                  struct fc_error *err);
const char *fc_chat_format_name(enum fc_chat_format format);

/* Recognises the format from the model's chat template and special tokens. A model without a
 * template is FC_CHAT_PLAIN; a template that is none of ours is FC_ERR_UNSUPPORTED, whose text
 * names the flag --chat-format that sets one. */
enum fc_code fc_chat_detect(const struct fc_tokenizer *tok, enum fc_chat_format *format,
                            struct fc_error *err);

/* Appends the tokens of the conversation, BOS and default system message included where the
 * model's own template adds them, equal to transformers' apply_chat_template. With `reply` the
 * header of the assistant's next turn is added. */
enum fc_code fc_chat_encode(const struct fc_tokenizer *tok, enum fc_chat_format format,
                            const struct fc_message *messages, size_t n, bool reply,
                            struct fc_tokens *out, struct fc_error *err);

/* The id that ends an assistant's turn in this format (eos for plain). */
int32_t fc_chat_end(const struct fc_tokenizer *tok, enum fc_chat_format format);

#endif
