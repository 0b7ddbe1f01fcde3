/** What torchao writes into the header of a file: of which class each weight is, and its attributes. */

import type { DType } from "../tensor/dtype.ts";
import { elementCount, type Shape } from "../tensor/shape.ts";
import { type JsonValue, pythonJson } from "./python_json.ts";
import type { Int4PackingFormat } from "./torchao_int4.ts";
import { activationsJson, type TorchaoActivations } from "./torchao_activations.ts";
import { MATMUL } from "./torchao_dynamic.ts";
import { FORMS, granularityOf, groupSizeOf } from "./torchao_schemes.ts";
import type { TorchAoQuantType } from "./torchao_types.ts";

/** The metadata of a file: what each tensor is. */
export function torchaoMetadata(
  tensors: readonly { name: string; json: string | null }[],
): Record<string, string> {
  const metadata: Record<string, string> = {};
  for (const { name, json } of tensors) metadata[name] = json ?? pythonJson({ _type: "Tensor" });
  return { ...metadata, tensor_names: pythonJson(tensors.map(({ name }) => name)) };
}

/** What the header says of a weight made by a config. */
export function schemeJson(
  { scheme, activations, activationScale }: TorchAoQuantType,
  shape: Shape,
  dtype: DType,
): string {
  const rounding = activations ? activationsJson(activations) : null;
  const group = groupSizeOf(shape, granularityOf(scheme)) ?? shape[1];
  const block = group === elementCount(shape) ? [...shape] : [1, group];
  const names = ["qdata", "scale", "zero_point"];
  switch (scheme.kind) {
    case "int8":
      return objectJson("Int8Tensor", int8Names(activations, activationScale !== undefined), {
        act_quant_kwargs: rounding,
        reduce_range: scheme.reduceRange ?? false,
        block_size: block,
        dtype: dtypeJson(dtype),
      });
    case "intx":
      return objectJson("IntxUnpackedToInt8Tensor", names, {
        target_dtype: dtypeJson(`int${scheme.bits}`),
        block_size: block,
        dtype: dtypeJson(dtype),
        activation_quantization: rounding,
      });
    case "int4":
      return int4Json(scheme.packing, block, shape);
    case "float8":
      return objectJson("Float8Tensor", ["qdata", "scale"], {
        block_size: block,
        mm_config: rounding && { _type: "Float8MMConfig", _data: MATMUL },
        act_quant_kwargs: rounding,
        kernel_preference: { _type: "KernelPreference", _data: "AUTO" },
        dtype: dtypeJson(dtype),
      });
    case "floatx":
      return objectJson(FORMS.floatx, ["qdata", "scale"], {
        ebits: scheme.format.exponentBits,
        mbits: scheme.format.mantissaBits,
        shape: [...shape],
        dtype: dtypeJson(dtype),
      });
  }
}

function int4Json(packing: Int4PackingFormat, block: readonly number[], shape: Shape): string {
  const isTiled = packing === "TILE_PACKED_TO_4D";
  const names = isTiled ? ["qdata", "scale_and_zero"] : ["qdata", "scale", "zero_point"];
  const data = { block_size: block, shape: [...shape] };
  const activations = { activation_dtype: dtypeJson("bfloat16") };
  return objectJson(
    FORMS[packing],
    names,
    packing === "PLAIN" ? { ...activations, ...data } : data,
  );
}

/** The tensors of an Int8Tensor in torchao's order: optional ones first. */
function int8Names(
  activations: TorchaoActivations | undefined,
  isStatic: boolean,
): string[] {
  const isAsymmetric = activations?.kind === "int8" && activations.mapping === "ASYMMETRIC";
  const zero = isAsymmetric ? ["act_quant_zero_point"] : [];
  return ["zero_point", ...isStatic ? ["act_quant_scale", ...zero] : [], "qdata", "scale"];
}

function objectJson(type: string, names: readonly string[], data: JsonValue): string {
  return pythonJson({ _type: type, _data: data, _tensor_data_names: names });
}

function dtypeJson(name: string): JsonValue {
  return { _type: "torch.dtype", _data: name };
}
