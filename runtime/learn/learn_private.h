/* What the files of learn share. */
#ifndef TRN_LEARN_PRIVATE_H
#define TRN_LEARN_PRIVATE_H

#include "learn.h"

/* ---- model.c ---- */

#define LEARN_TRUNK "trunk."
#define LEARN_HEAD "head."
/* What the parameters of encoder `member`, from 0, begin with: "encoder.", "encoder2.", .. */
void learn_member_prefix(size_t member, char prefix[32]);
/* A line per node, for identities. */
void learn_describe_program(const trn_program *program, trn_text *text);

#endif
