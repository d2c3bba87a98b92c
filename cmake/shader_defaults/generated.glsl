// What a kernel without a fused chain takes in, for the build's check of the shaders.
#define EXTRA_BUFFERS(B)
#define EXTRA_SCALARS
#define EPILOGUE(value, index, column) { }
