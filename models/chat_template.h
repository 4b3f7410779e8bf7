/* What a chat template (Jinja) is recognised as. Private to models/chat*.c. */
#ifndef FC_MODELS_CHAT_TEMPLATE_H
#define FC_MODELS_CHAT_TEMPLATE_H

#include "base/memory.h"
#include "models/chat.h"

/* How one format writes a conversation. The texts of templates of one format differ a little. */
struct fc_chat_style {
    enum fc_chat_format format;
    bool bos;              /* once, in front */
    bool bos_each;         /* in front of every user's turn */
    bool trim;             /* contents are stripped of white space */
    bool takes_system;     /* Llama 2: a system message goes into the first user's turn */
    const char *reply_end; /* Llama 2: what stands between an answer and eos, and after it */
    const char *after_eos;
    struct fc_text system; /* ChatML: the system message when there is none; empty: none */
};

/* Reads the template into a style. FC_ERR_UNSUPPORTED for one that would not be written exactly as
 * transformers writes it. Free style->system. */
enum fc_code fc_chat_style_read(const char *text, struct fc_chat_style *style,
                                struct fc_error *err);

#endif
