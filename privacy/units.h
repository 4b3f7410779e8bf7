/* Units: the pieces of a private text that are replaced one by one, and the way back.
 *
 * A unit is a word (letters, marks and digits, with inner apostrophes and hyphens: "don't",
 * "mother-in-law", "3rd"), a number ("1,234.5") or a run of one other character ("?", "..."); runs
 * and compounds of more than 32 parts are cut. What lies between units - white space, control and
 * format characters, bytes that are not UTF-8 - is dropped: the output's spacing is a function of
 * the outputs alone, so nothing leaves through blanks, line breaks or broken bytes, and case leaves
 * only inside a vocabulary entry. The number of units does show; see max_units and pad in
 * privacy/perturb.h.
 */
#ifndef FC_PRIVACY_UNITS_H
#define FC_PRIVACY_UNITS_H

#include "base/error.h"
#include "base/memory.h"

#include <stdbool.h>
#include <stdint.h>

#define FC_MAX_PRIVATE_TEXT ((size_t)4 << 20)

struct fc_unit {
    size_t start, len; /* bytes of the text that was cut */
};

/* Zero-initialise; reuse at will; fc_units_free. */
struct fc_units {
    struct fc_unit *items;
    size_t n, capacity;
};
void fc_units_free(struct fc_units *units);

struct fc_cutter; /* compiled; one per thread */
enum fc_code fc_cutter_open(struct fc_cutter **cutter, struct fc_error *err);
void fc_cutter_close(struct fc_cutter *cutter); /* NULL is fine */

/* The units of len bytes (any bytes, at most FC_MAX_PRIVATE_TEXT) replace those in *units. */
enum fc_code fc_units_cut(const struct fc_cutter *cutter, const char *text, size_t len,
                          struct fc_units *units, struct fc_error *err);

/* Appends n output words with single spaces between them, but none before closing and after
 * opening marks; straight quotes open and close in turn. A function of the words alone, so it
 * tells nothing that they do not. A usually written text comes back as it was. */
void fc_units_join(const char *const *words, size_t n, struct fc_text *out);

#endif
