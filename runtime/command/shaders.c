/* terrane shaders: what becomes of the shaders on a device. One file for each thing that can be asked. */
#include "shaders.h"

#define AT(member) offsetof(shaders_values, member)
static const trn_option options[] = {
    {.name = "statistics",
     .kind = OPTION_FLAG,
     .offset = AT(statistics),
     .help = "compiles the kernels and tells what the driver says of them: registers, spills, occupancy. "
             "Nothing is "
             "run on the device"},
    {.name = "model",
     .letter = 'm',
     .kind = OPTION_LIST,
     .offset = AT(models),
     .placeholder = "NAME",
     .help = "of --statistics: kernels of this encoder alone; may be repeated. Default: of all encoders, and "
             "of the "
             "operators' test cases"},
    {.name = "training",
     .kind = OPTION_FLAG,
     .offset = AT(training),
     .help = "of --statistics: also the kernels of a training step"},
    OPTION_DEVICE(AT(device)),
    {.name = NULL},
};

static trn_status run(const trn_command *command, void *user, trn_error *err)
{
    const shaders_values *values = user;
    if (values->statistics) return shaders_statistics(values, err);
    return trn_fail(err, TRN_ERR_ARGUMENT, "what of the shaders? usage: terrane %s", command->usage);
}

const trn_command shaders_command = {
    .name = "shaders",
    .usage = "shaders --statistics [--model NAME]... [--training] [--json]",
    .summary = "compiles the shaders and tells what the driver made of them",
    .details =
        "Compiles every kernel that the encoders need on a device, those that are chosen when nothing was "
        "measured and those that could be chosen instead, and prints what the driver's compiler tells: for "
        "who writes kernels. It works on drivers that only compile, too; tests/drivers/ has such.",
    .example = "  terrane shaders --statistics --model vit-base",
    .options = options,
    .values_size = sizeof(shaders_values),
    .run = run,
};
