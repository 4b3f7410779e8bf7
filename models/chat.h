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

/* Recognises the format from the model's chat template, word for word: ChatML (SmolLM2, Qwen2 and
 * 2.5), Llama 3 (without the dates of 3.1 and later), Llama 2 and Mistral Instruct 0.1 and 0.2. A
 * model without a template is FC_CHAT_PLAIN; any other template, also one that is nearly ours, is
 * FC_ERR_UNSUPPORTED, whose text names the flag --chat-format that sets one. */
enum fc_code fc_chat_detect(const struct fc_tokenizer *tok, enum fc_chat_format *format,
                            struct fc_error *err);

/* Appends the tokens of the conversation, BOS and default system message included where the
 * model's own template adds them, equal to transformers' apply_chat_template. With `reply` the
 * header of the assistant's next turn is added.
 *
 * Where the model's template is of another format than the one asked for, the format's usual form
 * is written, without a default system message and with a BOS if the tokenizer adds one. Plain is
 * the contents with an empty line between them; `reply` adds nothing.
 *
 * FC_ERR_INPUT: no messages, or roles that the format cannot have in this order;
 * FC_ERR_UNSUPPORTED: FC_CHAT_AUTO with an unknown template, or a system message where the template
 * has no place. */
enum fc_code fc_chat_encode(const struct fc_tokenizer *tok, enum fc_chat_format format,
                            const struct fc_message *messages, size_t n, bool reply,
                            struct fc_tokens *out, struct fc_error *err);

/* The id that ends an assistant's turn in this format (eos for plain, Llama 2, and where the
 * vocabulary lacks the format's own); -1: none. */
int32_t fc_chat_end(const struct fc_tokenizer *tok, enum fc_chat_format format);

#endif
