/* Writing a tokenizer for transformers: a copy of the files it was read from, or, for a GGUF, files
 * made of its metadata. */
#include "base/file.h"
#include "base/json.h"
#include "models/tokenizer_private.h"

#include <string.h>

/* ---- copies ------------------------------------------------------------------------------------
 */

static enum fc_code copy_file(const char *from, const char *folder, const char *name,
                              struct fc_error *err)
{
    char *text = NULL, *to = fc_path_join(folder, name, err);
    size_t len;
    enum fc_code code = to ? fc_file_read(from, FC_TOK_MAX_FILE, &text, &len, err) : FC_ERR_MEMORY;
    if (code == FC_OK)
        code = fc_file_write(to, text, len, err);
    free(text);
    free(to);
    return code;
}

static enum fc_code save_copies(const struct fc_tokenizer *tok, const char *folder,
                                struct fc_error *err)
{
    static const char *const beside[] = {"tokenizer_config.json",
                                         "special_tokens_map.json",
                                         "chat_template.jinja",
                                         "added_tokens.json",
                                         "tokenizer.model",
                                         "vocab.json",
                                         "merges.txt"};
    enum fc_code code = copy_file(tok->source, folder, "tokenizer.json", err);
    for (size_t i = 0; code == FC_OK && tok->folder && i < sizeof beside / sizeof *beside; i++) {
        char *from = fc_path_join(tok->folder, beside[i], err);
        if (!from)
            return FC_ERR_MEMORY;
        if (fc_is_file(from))
            code = copy_file(from, folder, beside[i], err);
        free(from);
    }
    return code;
}

/* ---- tokenizer.json ----------------------------------------------------------------------------
 */

static void put_string(struct fc_text *out, const char *s)
{
    fc_text_puts(out, "\"");
    for (; *s; s++) {
        if ((unsigned char)*s < 0x20)
            fc_text_printf(out, "\\u%04x", (unsigned)*s);
        else if (*s == '"' || *s == '\\')
            fc_text_printf(out, "\\%c", *s);
        else
            fc_text_add(out, s, 1);
    }
    fc_text_puts(out, "\"");
}

static const char *flag(bool b)
{
    return b ? "true" : "false";
}

static void put_added(const struct fc_tokenizer *tok, struct fc_text *out)
{
    fc_text_puts(out, "\"added_tokens\":[");
    for (size_t i = 0; i < tok->n_added; i++) {
        const struct fc_added *a = &tok->added[i];
        fc_text_printf(out, "%s\n{\"id\":%d,\"content\":", i ? "," : "", a->id);
        put_string(out, fc_tokenizer_piece(tok, a->id));
        fc_text_printf(out,
                       ",\"single_word\":false,\"lstrip\":%s,\"rstrip\":%s,\"normalized\":%s,"
                       "\"special\":%s}",
                       flag(a->lstrip), flag(a->rstrip), flag(a->normalized), flag(a->special));
    }
    fc_text_puts(out, "],\n");
}

/* The three stages stand between the braces of the pipeline's text. */
static void put_pipeline(const struct fc_tokenizer *tok, struct fc_text *out)
{
    fc_text_add(out, tok->pipeline + 1, strlen(tok->pipeline) - 2);
    fc_text_puts(out, ",\n\"post_processor\":");
    if (!fc_tokenizer_adds_bos(tok)) {
        fc_text_puts(out, "null,\n");
        return;
    }
    struct fc_text bos = {0};
    put_string(&bos, fc_tokenizer_piece(tok, tok->bos));
    if (bos.failed)
        out->failed = 1;
    else
        fc_text_printf(out,
                       "{\"type\":\"TemplateProcessing\",\"single\":[{\"SpecialToken\":{\"id\":%s,"
                       "\"type_id\":0}},{\"Sequence\":{\"id\":\"A\",\"type_id\":0}}],\"pair\":["
                       "{\"SpecialToken\":{\"id\":%s,\"type_id\":0}},{\"Sequence\":{\"id\":\"A\","
                       "\"type_id\":0}},{\"SpecialToken\":{\"id\":%s,\"type_id\":1}},{\"Sequence\":"
                       "{\"id\":\"B\",\"type_id\":1}}],\"special_tokens\":{%s:{\"id\":%s,\"ids\":["
                       "%d],\"tokens\":[%s]}}},\n",
                       bos.data, bos.data, bos.data, bos.data, bos.data, tok->bos, bos.data);
    fc_text_free(&bos);
}

static int by_rank(const void *a, const void *b)
{
    uint32_t x = ((const struct fc_merge *)a)->rank, y = ((const struct fc_merge *)b)->rank;
    return (x > y) - (x < y);
}

static enum fc_code put_merges(const struct fc_tokenizer *tok, struct fc_text *out,
                               struct fc_error *err)
{
    struct fc_merge *merges = fc_alloc(tok->bpe.n, sizeof *merges, "merges", err);
    size_t n = 0;
    if (!merges)
        return FC_ERR_MEMORY;
    for (size_t i = 0; tok->bpe.slots && i <= tok->bpe.mask; i++)
        if (tok->bpe.slots[i].left >= 0)
            merges[n++] = tok->bpe.slots[i];
    if (n)
        qsort(merges, n, sizeof *merges, by_rank);
    fc_text_puts(out, "\"merges\":[");
    for (size_t i = 0; i < n; i++) {
        fc_text_puts(out, i ? ",\n[" : "\n[");
        put_string(out, fc_tokenizer_piece(tok, merges[i].left));
        fc_text_puts(out, ",");
        put_string(out, fc_tokenizer_piece(tok, merges[i].right));
        fc_text_puts(out, "]");
    }
    fc_text_puts(out, "]");
    free(merges);
    return FC_OK;
}

static enum fc_code put_model(const struct fc_tokenizer *tok, struct fc_text *out,
                              struct fc_error *err)
{
    const char *comma = "";
    fc_text_puts(out, "\"model\":{\"type\":\"BPE\",\"dropout\":null,\"unk_token\":");
    if (tok->bpe.unk < 0)
        fc_text_puts(out, "null");
    else
        put_string(out, fc_tokenizer_piece(tok, tok->bpe.unk));
    fc_text_printf(out,
                   ",\"continuing_subword_prefix\":null,\"end_of_word_suffix\":null,"
                   "\"fuse_unk\":%s,\"byte_fallback\":%s,\"ignore_merges\":%s,\n\"vocab\":{",
                   flag(tok->bpe.fuse_unk), flag(tok->bpe.byte_fallback),
                   flag(tok->bpe.ignore_merges));
    for (size_t id = 0; id < tok->vocab.size; id++) {
        if (!(tok->vocab.flags[id] & FC_TOKEN_MODEL))
            continue;
        fc_text_printf(out, "%s\n", comma);
        put_string(out, fc_piece_text(&tok->vocab.pieces, id));
        fc_text_printf(out, ":%zu", id);
        comma = ",";
    }
    fc_text_puts(out, "},\n");
    enum fc_code code = put_merges(tok, out, err);
    fc_text_puts(out, "}");
    return code;
}

static enum fc_code write_text(const struct fc_text *text, const char *folder, const char *name,
                               struct fc_error *err)
{
    enum fc_code code = fc_text_check(text, err);
    if (code != FC_OK)
        return code;
    char *path = fc_path_join(folder, name, err);
    code = path ? fc_file_write(path, text->data, text->len, err) : FC_ERR_MEMORY;
    free(path);
    return code;
}

static enum fc_code save_tokenizer(const struct fc_tokenizer *tok, const char *folder,
                                   struct fc_error *err)
{
    struct fc_text out = {0};
    fc_text_puts(&out, "{\"version\":\"1.0\",\"truncation\":null,\"padding\":null,\n");
    put_added(tok, &out);
    put_pipeline(tok, &out);
    enum fc_code code = put_model(tok, &out, err);
    fc_text_puts(&out, "}\n");
    if (code == FC_OK)
        code = write_text(&out, folder, "tokenizer.json", err);
    fc_text_free(&out);
    return code;
}

/* ---- tokenizer_config.json and special_tokens_map.json ----------------------------------------
 */

static void put_tokens(const struct fc_tokenizer *tok, struct fc_text *out)
{
    const struct {
        const char *name;
        int32_t id;
    } tokens[] = {{"bos_token", tok->bos},
                  {"eos_token", tok->eos},
                  {"unk_token", tok->unk},
                  {"pad_token", tok->pad}};
    const char *comma = "";
    for (size_t i = 0; i < sizeof tokens / sizeof *tokens; i++) {
        const char *piece = fc_tokenizer_piece(tok, tokens[i].id);
        if (!piece)
            continue;
        fc_text_printf(out, "%s  \"%s\": ", comma, tokens[i].name);
        put_string(out, piece);
        comma = ",\n";
    }
    fc_text_puts(out, "\n}\n");
}

static enum fc_code save_config(const struct fc_tokenizer *tok, const char *folder,
                                struct fc_error *err)
{
    struct fc_text out = {0};
    fc_text_puts(&out, "{\n  \"tokenizer_class\": \"PreTrainedTokenizerFast\",\n"
                       "  \"clean_up_tokenization_spaces\": false,\n");
    fc_text_printf(&out, "  \"add_bos_token\": %s,\n  \"add_eos_token\": false,\n",
                   flag(fc_tokenizer_adds_bos(tok)));
    if (tok->chat_template) {
        fc_text_puts(&out, "  \"chat_template\": ");
        put_string(&out, tok->chat_template);
        fc_text_puts(&out, ",\n");
    }
    put_tokens(tok, &out);
    enum fc_code code = write_text(&out, folder, "tokenizer_config.json", err);
    fc_text_clear(&out);
    fc_text_puts(&out, "{\n");
    put_tokens(tok, &out);
    if (code == FC_OK)
        code = write_text(&out, folder, "special_tokens_map.json", err);
    fc_text_free(&out);
    return code;
}

enum fc_code fc_tokenizer_save(const struct fc_tokenizer *tok, const char *folder,
                               struct fc_error *err)
{
    if (tok->source)
        return save_copies(tok, folder, err);
    enum fc_code code = save_tokenizer(tok, folder, err);
    return code == FC_OK ? save_config(tok, folder, err) : code;
}
