/* Recognises chat templates. There is no Jinja interpreter here: a template is brought into a
 * canonical form (blanks outside of strings gone, one kind of quote, escapes resolved) and must
 * then hold the expressions of a format that we know, word for word. What is not recognised is
 * refused: a prompt that is nearly right costs accuracy that nobody sees. */
#include "models/chat_template.h"

#include <ctype.h>
#include <string.h>

/* Quotes in the canonical form, and text that stands outside of every tag: no template holds these
 * bytes. */
#define Q "\1"
#define R "\2"

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

/* Whether blanks between two tags reach the prompt, as transformers sets Jinja up: a '-' in a tag
 * takes them, a line end after a block is dropped, and so are blanks before a block that stands
 * first on its line. block_before: the tag before is {% %}; next: what follows, NUL at the end. */
static bool blanks_show(const char *text, size_t len, bool block_before, bool dash_before,
                        const char *next)
{
    if (dash_before || (next[0] && next[2] == '-'))
        return false;
    if (len && text[0] == '\n' && (block_before || (!next[0] && len == 1))) {
        text++;
        len--;
    }
    bool own_line = block_before || (len && memchr(text, '\n', len));
    while (next[0] && next[1] != '{' && own_line && len && text[len - 1] != '\n')
        len--;
    return len != 0;
}

/* Text outside of tags, from p to the next tag: nothing where it does not show, else the mark R,
 * for which no known template asks. */
static const char *skip_text(const char *p, const char *tag, struct fc_text *out)
{
    const char *end = p;
    bool blank = true;
    for (; *end && !(end[0] == '{' && end[1] && strchr("{%#", end[1])); end++)
        blank = blank && isspace((unsigned char)*end);
    bool block = tag && tag[0] != '}';
    if (!blank || blanks_show(p, (size_t)(end - p), block, tag && tag[-1] == '-', end))
        fc_text_puts(out, R);
    return end;
}

static enum fc_code canonical(const char *text, struct fc_text *out, struct fc_error *err)
{
    const char *p = skip_text(text, NULL, out);
    fc_text_puts(out, "");
    while (*p) {
        bool comment = p[1] == '#';
        if (!comment)
            fc_text_add(out, p, 2);
        for (p += p[2] == '-' ? 3 : 2; *p; p++) {
            if (comment ? p[0] == '#' && p[1] == '}' : strchr("}%", *p) && p[1] == '}')
                break;
            if (comment)
                continue;
            if (*p == '\'' || *p == '"')
                p = copy_string(p, out);
            else if (!isspace((unsigned char)*p) && !(p[0] == '-' && p[1] && strchr("}%", p[1])))
                fc_text_add(out, p, 1);
        }
        if (!*p)
            break;
        if (!comment)
            fc_text_add(out, p, 2);
        p = skip_text(p + 2, p, out);
    }
    return fc_text_check(out, err);
}

#define MAX_NEEDLES 4

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
        "bos_token+" INST("content" strip), Q " " Q "+content" strip "+" Q " " Q "+eos_token",     \
            SYS "%}", "{%setcontent=" CONTENT "%}"                                                 \
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
    if (strstr(text, R))
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
