#include "llama-quant.cpp"
#include <cstdlib>
#include <map>

// llama_mixes FTYPE LAYERS < lines of "NAME COLUMNS ROWS": prints a line "NAME TYPE" for each, as llama.cpp
// would choose it for an encoder of T5. The choice asks the model for nothing but its class and its counts,
// so a zeroed one will do; see make_t5_mix_goldens.py.
int main(int, char ** argv) {
    auto ftype = (llama_ftype) std::atoi(argv[1]);
    auto * model = (llama_model *) std::calloc(1, sizeof(llama_model));
    model->arch = LLM_ARCH_T5ENCODER;
    model->hparams.n_layer_all = std::atoi(argv[2]);
    for (uint32_t i = 0; i < model->hparams.n_layer_all; i++) {
        model->hparams.n_head_arr[i] = model->hparams.n_head_kv_arr[i] = 64;
    }
    std::map<std::string, ggml_tensor, llama_model_loader::weight_name_comparer> tensors;
    char name[256];
    long columns, rows;
    while (std::scanf("%255s %ld %ld", name, &columns, &rows) == 3) {
        ggml_tensor tensor = {};
        tensor.type = GGML_TYPE_F32;
        tensor.ne[0] = columns;
        tensor.ne[1] = rows;
        tensor.ne[2] = tensor.ne[3] = 1;
        std::snprintf(tensor.name, sizeof tensor.name, "%s", name);
        tensors[name] = tensor;
    }
    auto params = llama_model_quantize_default_params();
    params.ftype = ftype;
    auto * state = llama_quant_init(model, &params);
    std::vector<ggml_tensor *> list;
    for (auto & [_, tensor] : tensors) list.push_back(&tensor);
    std::vector<ggml_type> types(list.size());
    llama_quant_compute_types(state, ftype, list.data(), types.data(), list.size());
    for (size_t i = 0; i < list.size(); i++) std::printf("%s %s\n", list[i]->name, ggml_type_name(types[i]));
}
