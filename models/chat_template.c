/* Recognises chat templates. There is no Jinja interpreter here: a template is brought into a
 * canonical form (blanks outside of strings gone, one kind of quote, escapes resolved) and must
 * then hold the expressions of a format that we know, word for word. What is not recognised is
 * refused: a prompt that is nearly right costs accuracy that nobody sees. */
#include "models/chat_template.h"

#include <ctype.h>
#include <string.h>

/* Quotes in the canonical form: no template holds this byte. */
#define Q "\1"

static const char *copy_string(const char *p, struct fc_text *out)
{
    static const char escapes[] = "n\nt\tr\r";
    char quote = *p++;
    fc_text_puts(out, Q);
    for (; *p && *p != quote; p++) {
        if (*p == '\\' && p[1]) {
            p++;
            const char *e = strchr(escapes, *p);
            fc_text_add(out, e && (e - escapes) % 2 == 0 ? e + 1 : p, 1);
        } else {
            fc_text_add(out, p, 1);
        }
    }
    fc_text_puts(out, Q);
    return *p ? p : p - 1;
}

/* Text between tags is kept without blanks, which is enough to see that it is there. */
static enum fc_code canonical(const char *text, struct fc_text *out, struct fc_error *err)
{
    bool in_tag = false;
    fc_text_puts(out, "");
    for (const char *p = text; *p; p++) {
        if (p[0] == '{' && (p[1] == '{' || p[1] == '%')) {
            in_tag = true;
            fc_text_add(out, p++, 2);
            p += p[1] == '-';
        } else if (in_tag && (*p == '\'' || *p == '"')) {
            p = copy_string(p, out);
        } else if (in_tag && (p[0] == '}' || p[0] == '%') && p[1] == '}') {
            in_tag = false;
            fc_text_add(out, p++, 2);
        } else if (in_tag && *p == '-' && (p[1] == '}' || p[1] == '%')) {
            continue;
        } else if (!isspace((unsigned char)*p)) {
            fc_text_add(out, p, 1);
        }
    }
    return fc_text_check(out, err);
}

#define MAX_NEEDLES 3

/* A known template: all of `has`, none of `has_not`. */
struct known {
    enum fc_chat_format format;
    const char *has[MAX_NEEDLES], *has_not[MAX_NEEDLES];
    struct fc_chat_style style;
};

#define CHATML(role, content)                                                                      \
    Q "<|im_start|>" Q "+" role "+" Q "\n" Q "+" content "+" Q "<|im_end|>" Q "+" Q "\n" Q
#define CHATML_REPLY Q "<|im_start|>assistant\n" Q
#define THINKING "enable_thinking", "reasoning_content", "</think>"
#define LLAMA3(role, content)                                                                      \
    Q "<|start_header_id|>" Q "+" role "+" Q "<|end_header_id|>\n\n" Q "+" content "|trim+" Q      \
      "<|eot_id|>" Q
#define LLAMA3_REPLY Q "<|start_header_id|>assistant<|end_header_id|>\n\n" Q
#define DATES "date_string", "strftime_now"
#define INST(content) Q "[INST] " Q "+" content "+" Q " [/INST]" Q
#define SYS Q "<<SYS>>\n" Q "+system_message+" Q "\n<</SYS>>\n\n" Q "+message[" Q "content" Q "]"
#define ROLE "message[" Q "role" Q "]"
#define CONTENT "message[" Q "content" Q "]"
#define LLAMA2(strip)                                                                              \
    {                                                                                              \
        "bos_token+" INST("content" strip), Q " " Q "+content" strip "+" Q " " Q "+eos_token", SYS \
    }

static const struct known known[] = {
    {FC_CHAT_CHATML, {CHATML(ROLE, CONTENT), CHATML_REPLY}, {THINKING}, {.bos = false}},
    {FC_CHAT_CHATML,
     {CHATML("message.role", "message.content"), CHATML_REPLY},
     {THINKING},
     {.bos = false}},
    {FC_CHAT_LLAMA3,
     {LLAMA3(ROLE, CONTENT), LLAMA3_REPLY, "bos_token+content"},
     {DATES},
     {.bos = true, .trim = true}},
    {FC_CHAT_LLAMA2,
     LLAMA2(".strip()"),
     {Q "You are"},
     {.bos_each = true, .trim = true, .takes_system = true, .reply_end = " ", .after_eos = ""}},
    {FC_CHAT_LLAMA2,
     LLAMA2("|trim"),
     {Q "You are"},
     {.bos_each = true, .trim = true, .takes_system = true, .reply_end = " ", .after_eos = ""}},
    /* Mistral 7B Instruct 0.1, then 0.2. */
    {FC_CHAT_LLAMA2,
     {"{{bos_token}}", INST(CONTENT), CONTENT "+eos_token+" Q " " Q},
     {SYS},
     {.bos = true, .reply_end = "", .after_eos = " "}},
    {FC_CHAT_LLAMA2,
     {"{{bos_token}}", INST(CONTENT), CONTENT "+eos_token}}"},
     {SYS},
     {.bos = true, .reply_end = "", .after_eos = ""}},
};

static bool matches(const struct known *k, const char *text)
{
    for (size_t i = 0; i < MAX_NEEDLES; i++)
        if ((k->has[i] && !strstr(text, k->has[i])) ||
            (k->has_not[i] && strstr(text, k->has_not[i])))
            return false;
    return strstr(text, "add_generation_prompt") || k->format == FC_CHAT_LLAMA2;
}

/* The system message that ChatML templates put first when the conversation has none: the only
 * string that opens and closes a system turn itself. */
static void find_system(const char *text, struct fc_text *system)
{
    static const char open[] = Q "<|im_start|>system\n", close[] = "<|im_end|>\n" Q;
    for (const char *p = text; (p = strstr(p, open)); p++) {
        const char *begin = p + strlen(open), *end = strstr(begin, close);
        const char *quote = strchr(begin, Q[0]);
        if (end && quote == end + strlen(close) - 1) {
            fc_text_add(system, begin, (size_t)(end - begin));
            return;
        }
    }
}

enum fc_code fc_chat_style_read(const char *text, struct fc_chat_style *style, struct fc_error *err)
{
    struct fc_text canon = {0};
    enum fc_code code = canonical(text, &canon, err);
    const struct known *found = NULL;
    for (size_t i = 0; code == FC_OK && !found && i < sizeof known / sizeof *known; i++)
        if (matches(&known[i], canon.data))
            found = &known[i];
    if (code == FC_OK && found) {
        *style = found->style;
        style->format = found->format;
        const char *bos = strstr(canon.data, "bos_token");
        if (found->format == FC_CHAT_CHATML && bos) {
            style->bos = strncmp(canon.data, "{{bos_token}}", 13) == 0;
            if (!style->bos)
                found = NULL;
        }
        if (found && found->format == FC_CHAT_CHATML)
            find_system(canon.data, &style->system);
        code = fc_text_check(&style->system, err);
    }
    if (code == FC_OK && !found)
        code = fc_fail(err, FC_ERR_UNSUPPORTED,
                       "the model's chat template is none that is known word for word (ChatML, "
                       "Llama 2, Llama 3, Mistral 0.1 and 0.2): name the nearest format with "
                       "--chat-format chatml, llama2, llama3 or plain");
    fc_text_free(&canon);
    return code;
}
