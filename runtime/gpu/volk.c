/* The one place where the body of volk, the loader of Vulkan's functions, is compiled. */
#define VOLK_IMPLEMENTATION
#include <volk.h>
