// ggml_list FILE: opens a GGUF file as ggml's users do (stable-diffusion.cpp, llama.cpp) and prints each tensor:
// name, type, bytes, offset from the start of the file, dimensions from the innermost.
#include <cstdio>

#include "ggml.h"
#include "gguf.h"

int main(int, char ** argv) {
    ggml_context * tensors = nullptr;
    gguf_context * file = gguf_init_from_file(argv[1], {true, &tensors});
    if (file == nullptr) return 1;
    for (int64_t i = 0; i < gguf_get_n_tensors(file); i++) {
        const char * name = gguf_get_tensor_name(file, i);
        const ggml_tensor * tensor = ggml_get_tensor(tensors, name);
        std::printf("%s\t%s\t%zu\t%zu", name, ggml_type_name(tensor->type), ggml_nbytes(tensor),
                    gguf_get_data_offset(file) + gguf_get_tensor_offset(file, i));
        for (int j = 0; j < ggml_n_dims(tensor); j++) std::printf("\t%lld", (long long) tensor->ne[j]);
        std::printf("\n");
    }
    return 0;
}
