/* Leaks on purpose, one for each way that the scan must see. Preloaded into a client; the way is
 * chosen when it is compiled. It sees private text where the program reads its data set. */
#define _GNU_SOURCE
#include <cjson/cJSON.h>
#include <dlfcn.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static char prompt[256];

cJSON *cJSON_ParseWithLengthOpts(const char *value, size_t length, const char **end,
                                 cJSON_bool terminated)
{
    cJSON *(*real)(const char *, size_t, const char **, cJSON_bool);
    *(void **)&real = dlsym(RTLD_NEXT, "cJSON_ParseWithLengthOpts");
    cJSON *json = real(value, length, end, terminated);
    const cJSON *question = cJSON_GetObjectItemCaseSensitive(json, "question");
    if (cJSON_IsString(question) && !prompt[0]) {
        snprintf(prompt, sizeof prompt, "%s", question->valuestring);
#ifdef LEAK_LOG
        fprintf(stderr, "debug: read %s\n", prompt);
#endif
#ifdef LEAK_CODED /* hidden from a reader, and half of it only */
        fputs("debug: ", stderr);
        for (size_t i = 20; i < 80 && prompt[i]; i++)
            fprintf(stderr, "%02X", (unsigned char)prompt[i]);
        fputs("\n", stderr);
#endif
#ifdef LEAK_FILE
        char path[4096];
        const char *folder = getenv("TMPDIR");
        snprintf(path, sizeof path, "%s/scratch", folder ? folder : "/tmp");
        FILE *file = fopen(path, "w");
        if (file) {
            fputs(prompt, file);
            fclose(file);
        }
#endif
    }
    return json;
}

#ifdef LEAK_HEADER
/* Into the header of the first frame that carries prompts. */
char *cJSON_PrintUnformatted(const cJSON *item)
{
    char *(*real)(const cJSON *);
    *(void **)&real = dlsym(RTLD_NEXT, "cJSON_PrintUnformatted");
    cJSON *copy = cJSON_Duplicate(item, 1);
    if (prompt[0] && cJSON_GetObjectItemCaseSensitive(copy, "job"))
        cJSON_AddStringToObject(copy, "note", prompt);
    char *text = real(copy);
    cJSON_Delete(copy);
    return text;
}
#endif

#ifdef LEAK_KEY
/* The ledger's key into the log, as the program reads or makes it: 32 bytes of a file of 32 bytes.
 */
ssize_t write(int fd, const void *bytes, size_t n)
{
    ssize_t (*real)(int, const void *, size_t);
    *(void **)&real = dlsym(RTLD_NEXT, "write");
    if (n == 32 && fd > 2) {
        fputs("debug: key ", stderr);
        for (size_t i = 0; i < n; i++)
            fprintf(stderr, "%02x", ((const unsigned char *)bytes)[i]);
        fputs("\n", stderr);
    }
    return real(fd, bytes, n);
}
#endif
