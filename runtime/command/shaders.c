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
    {.name = "pack",
     .kind = OPTION_TEXT,
     .offset = AT(pack),
     .placeholder = "DIR",
     .help = "writes the compiled kernels of cooperative matrices for the usual GPUs into this folder"},
    {.name = "model",
     .letter = 'm',
     .kind = OPTION_LIST,
     .offset = AT(models),
     .placeholder = "NAME",
     .help = "kernels of this encoder alone; may be repeated. Default: of all encoders, and of the "
             "operators' test cases"},
    {.name = "training",
     .kind = OPTION_FLAG,
     .offset = AT(training),
     .help = "of --statistics: also the kernels of a training step. A pack always has them"},
    OPTION_DEVICE(AT(device)),
    {.name = NULL},
};

static trn_status run(const trn_command *command, void *user, trn_error *err)
{
    const shaders_values *values = user;
    if (values->statistics && values->pack)
        return trn_fail(err, TRN_ERR_ARGUMENT, "--statistics or --pack, one at a time");
    if (values->pack) return shaders_pack(values, err);
    if (values->statistics) return shaders_statistics(values, err);
    return trn_fail(err, TRN_ERR_ARGUMENT, "what of the shaders? usage: terrane %s", command->usage);
}

const trn_command shaders_command = {
    .name = "shaders",
    .usage = "shaders --statistics [--model NAME]... [--training] [--json] | --pack DIR [--model NAME]...",
    .summary = "compiles the shaders, and tells what the driver made of them or packs them",
    .details =
        "--statistics compiles every kernel that the encoders need on a device, those that are chosen when "
        "nothing was "
        "measured and those that could be chosen instead, and prints what the driver's compiler tells: for "
        "who writes kernels. It works on drivers that only compile, too; tests/drivers/ has such.\n"
        "--pack is for machines whose shader compiler is too old to know GL_KHR_cooperative_matrix, so that "
        "terrane devices says that the matrix cores of their GPU stay unused: run it on a machine with "
        "libshaderc 2023.7 or newer and the same version of Terrane (a GPU is not needed), and copy the "
        "folder. It is looked for as $TERRANE_SHADER_PACK, as share/terrane/shaders where Terrane is "
        "installed, and as shader-pack in the cache folder. Take packs only from those whose programs you "
        "would run.",
    .example = "  terrane shaders --statistics --model mae-vit-base\n"
               "  terrane shaders --pack packs && TERRANE_SHADER_PACK=packs terrane devices",
    .options = options,
    .values_size = sizeof(shaders_values),
    .run = run,
};
