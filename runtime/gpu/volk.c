/* The one place where the body of volk, the loader of Vulkan's functions, is compiled. */
#define VOLK_IMPLEMENTATION
#include <volk.h>

/* ISO C wants a declaration here of our own. */
typedef int trn_volk_included;
