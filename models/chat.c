/* Chat prompts. The conversation is written out as its template would, with the users' bytes
 * marked, and goes through the tokenizer as one text: so words reach over the borders as they do in
 * transformers, and no special token is seen in what a user wrote. */
#include "models/chat.h"

#include "models/chat_template.h"
#include "models/tokenizer_private.h"

#include <string.h>

static const char *const names[] = {[FC_CHAT_AUTO] = "auto",
                                    [FC_CHAT_CHATML] = "chatml",
                                    [FC_CHAT_LLAMA2] = "llama2",
                                    [FC_CHAT_LLAMA3] = "llama3",
                                    [FC_CHAT_PLAIN] = "plain"};
static const char *const role_names[] = {
    [FC_ROLE_SYSTEM] = "system", [FC_ROLE_USER] = "user", [FC_ROLE_ASSISTANT] = "assistant"};

enum fc_code fc_chat_format_parse(const char *name, enum fc_chat_format *format,
                                  struct fc_error *err)
{
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        if (strcmp(name, names[i]) == 0) {
            *format = (enum fc_chat_format)i;
            return FC_OK;
        }
    }
    return fc_fail(err, FC_ERR_USAGE,
                   "chat format \"%.40s\": expected auto, chatml, llama2, llama3 or plain", name);
}

const char *fc_chat_format_name(enum fc_chat_format format)
{
    return names[format];
}

enum fc_code fc_chat_detect(const struct fc_tokenizer *tok, enum fc_chat_format *format,
                            struct fc_error *err)
{
    struct fc_chat_style style = {.format = FC_CHAT_PLAIN};
    enum fc_code code = FC_OK;
    if (tok->chat_template)
        code = fc_chat_style_read(tok->chat_template, &style, err);
    fc_text_free(&style.system);
    if (code == FC_OK)
        *format = style.format;
    return code;
}

/* The style of the model's template where it has the wanted format, else the format's usual one
 * with a BOS if the tokenizer adds one. */
static enum fc_code choose_style(const struct fc_tokenizer *tok, enum fc_chat_format format,
                                 struct fc_chat_style *style, struct fc_error *err)
{
    struct fc_error ignored = {0};
    bool wanted = format == FC_CHAT_AUTO;
    *style = (struct fc_chat_style){.format = FC_CHAT_PLAIN};
    if (tok->chat_template) {
        enum fc_code code = fc_chat_style_read(tok->chat_template, style, wanted ? err : &ignored);
        if (code == FC_OK && (wanted || style->format == format))
            return FC_OK;
        fc_text_free(&style->system);
        if (wanted)
            return code;
    }
    *style = (struct fc_chat_style){
        .format = wanted ? FC_CHAT_PLAIN : format,
        .trim = format == FC_CHAT_LLAMA2 || format == FC_CHAT_LLAMA3,
        .bos = format != FC_CHAT_LLAMA2 && fc_tokenizer_adds_bos(tok),
        .bos_each = format == FC_CHAT_LLAMA2,
        .takes_system = true,
        .reply_end = " ",
        .after_eos = "",
    };
    return FC_OK;
}

/* ---- writing -----------------------------------------------------------------------------------
 */

struct writer {
    const struct fc_tokenizer *tok;
    const struct fc_chat_style *style;
    struct fc_text text;
    struct fc_spans users; /* the parts of text that users wrote */
    enum fc_code code;
    struct fc_error *err;
};

static void markup(struct writer *w, const char *text)
{
    fc_text_puts(&w->text, text);
}

/* A special token by id; nothing if the model has none. */
static void special(struct writer *w, int32_t id)
{
    const char *piece = fc_tokenizer_piece(w->tok, id);
    if (piece)
        markup(w, piece);
}

/* Python's str.strip() takes four more control characters than Unicode's White_Space. */
static bool is_blank(uint32_t cp)
{
    return fc_is_white(cp) || (cp >= 0x1C && cp <= 0x1F);
}

static void trim(const char **text, size_t *len)
{
    uint32_t cp;
    while (*len) {
        size_t n = fc_utf8_decode(*text, *len, &cp);
        if (!is_blank(cp))
            break;
        *text += n;
        *len -= n;
    }
    while (*len) {
        size_t at = *len - 1;
        while (at && ((unsigned char)(*text)[at] & 0xC0) == 0x80)
            at--;
        fc_utf8_decode(*text + at, *len - at, &cp);
        if (!is_blank(cp))
            break;
        *len = at;
    }
}

static void user_text(struct writer *w, const char *text, size_t len)
{
    size_t begin = w->text.len;
    fc_utf8_repair(text, len, &w->text);
    if (w->code == FC_OK && w->text.len > begin)
        w->code = fc_spans_add(&w->users, begin, w->text.len, w->err);
}

static void content(struct writer *w, const struct fc_message *m)
{
    const char *text = m->content;
    size_t len = m->len;
    if (w->style->trim)
        trim(&text, &len);
    user_text(w, text, len);
}

static void write_chatml(struct writer *w, const struct fc_message *m, size_t n, bool reply)
{
    if (w->style->system.len && m[0].role != FC_ROLE_SYSTEM) {
        markup(w, "<|im_start|>system\n");
        markup(w, w->style->system.data);
        markup(w, "<|im_end|>\n");
    }
    for (size_t i = 0; i < n; i++) {
        markup(w, "<|im_start|>");
        markup(w, role_names[m[i].role]);
        markup(w, "\n");
        content(w, &m[i]);
        markup(w, "<|im_end|>\n");
    }
    if (reply)
        markup(w, "<|im_start|>assistant\n");
}

static void write_llama3(struct writer *w, const struct fc_message *m, size_t n, bool reply)
{
    for (size_t i = 0; i < n; i++) {
        markup(w, "<|start_header_id|>");
        markup(w, role_names[m[i].role]);
        markup(w, "<|end_header_id|>\n\n");
        content(w, &m[i]);
        markup(w, "<|eot_id|>");
    }
    if (reply)
        markup(w, "<|start_header_id|>assistant<|end_header_id|>\n\n");
}

/* System and first user's message are one text, stripped as one: its front is <<SYS>>. */
static void llama2_first(struct writer *w, const struct fc_message *system,
                         const struct fc_message *user)
{
    const char *front = user->content;
    size_t len = user->len;
    trim(&front, &len);
    markup(w, "<<SYS>>\n");
    user_text(w, system->content, system->len);
    /* A user's message of blanks leaves the markup's own line ends at the back, which go too. */
    markup(w, len ? "\n<</SYS>>\n\n" : "\n<</SYS>>");
    user_text(w, user->content, len ? (size_t)(front - user->content) + len : 0);
}

static void write_llama2(struct writer *w, const struct fc_message *m, size_t n, bool reply)
{
    const struct fc_message *system = m[0].role == FC_ROLE_SYSTEM ? m : NULL;
    size_t first = system ? 1 : 0;
    (void)reply; /* the answer follows [/INST] */
    if (system && !w->style->takes_system)
        w->code = fc_fail(w->err, FC_ERR_UNSUPPORTED,
                          "the model's chat template takes no system message");
    for (size_t i = first; w->code == FC_OK && i < n; i++) {
        bool user = m[i].role == FC_ROLE_USER;
        if (user != ((i - first) % 2 == 0) || m[i].role == FC_ROLE_SYSTEM) {
            w->code = fc_fail(w->err, FC_ERR_INPUT,
                              "message %zu is the %s's: this chat format takes user and assistant "
                              "in turn, after at most one system message",
                              i, role_names[m[i].role]);
        } else if (user) {
            if (w->style->bos_each)
                special(w, w->tok->bos);
            markup(w, "[INST] ");
            if (i == first && system)
                llama2_first(w, system, &m[i]);
            else
                content(w, &m[i]);
            markup(w, " [/INST]");
        } else {
            markup(w, w->style->reply_end);
            content(w, &m[i]);
            markup(w, w->style->reply_end);
            special(w, w->tok->eos);
            markup(w, w->style->after_eos);
        }
    }
}

static void write_plain(struct writer *w, const struct fc_message *m, size_t n, bool reply)
{
    (void)reply;
    for (size_t i = 0; i < n; i++) {
        if (i)
            markup(w, "\n\n");
        content(w, &m[i]);
    }
}

enum fc_code fc_chat_encode(const struct fc_tokenizer *tok, enum fc_chat_format format,
                            const struct fc_message *messages, size_t n, bool reply,
                            struct fc_tokens *out, struct fc_error *err)
{
    static void (*const writers[])(struct writer *, const struct fc_message *, size_t,
                                   bool) = {[FC_CHAT_CHATML] = write_chatml,
                                            [FC_CHAT_LLAMA2] = write_llama2,
                                            [FC_CHAT_LLAMA3] = write_llama3,
                                            [FC_CHAT_PLAIN] = write_plain};
    struct fc_chat_style style;
    if (n == 0)
        return fc_fail(err, FC_ERR_INPUT, "a conversation without messages");
    enum fc_code code = choose_style(tok, format, &style, err);
    if (code != FC_OK)
        return code;
    struct writer w = {.tok = tok, .style = &style, .err = err};
    if (style.bos)
        special(&w, tok->bos);
    writers[style.format](&w, messages, n, reply);
    if (w.code == FC_OK)
        w.code = fc_text_check(&w.text, err);
    if (w.code == FC_OK && w.text.len) {
        struct fc_marks marks = {w.users.at, w.users.n};
        w.code = fc_tok_encode_marked(tok, w.text.data, w.text.len, &marks, out, err);
    }
    fc_text_free(&style.system);
    fc_text_free(&w.text);
    free(w.users.at);
    return w.code;
}

int32_t fc_chat_end(const struct fc_tokenizer *tok, enum fc_chat_format format)
{
    const char *end = NULL;
    if (format == FC_CHAT_AUTO && fc_chat_detect(tok, &format, NULL) != FC_OK)
        return tok->eos;
    if (format == FC_CHAT_CHATML)
        end = "<|im_end|>";
    else if (format == FC_CHAT_LLAMA3)
        end = "<|eot_id|>";
    int32_t id = end ? fc_tokenizer_id(tok, end) : -1;
    return id >= 0 ? id : tok->eos;
}
