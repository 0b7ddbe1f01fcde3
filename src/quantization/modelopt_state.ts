/**
 * ModelOpt's modelopt_state.pth: the modes that were applied to a model, each with its config and with the
 * attributes of every quantizer then. A Linear layer has three quantizers, a LayerNorm two. Without the file
 * ModelOpt does not know that weights are compressed; with it from_pretrained of Diffusers rebuilds them.
 * test/goldens/make_modelopt_state_goldens.py holds it against the library's.
 */

import type { NVIDIAModelOptConfig } from "./modelopt_config.ts";
import {
  activationSettings,
  attributeConfig,
  attributes,
  DEFAULTS,
  type Dict,
  type Layer,
  layerOf,
  packedWeight,
  type Settings,
  weightQuantizer,
} from "./modelopt_quantizers.ts";
import { isModelOptWeight } from "./modelopt_tensors.ts";
import { PythonTuple } from "./python_pickle.ts";
import type { StateFile, TensorHeaders } from "./quantizer.ts";

/** The version whose layout this is. */
const VERSION = "0.47.0";

/** The name of the file in the folder. */
export const MODELOPT_STATE_NAME = "modelopt_state.pth";

/** The modules of a model that ModelOpt gives quantizers. */
export interface QuantizerModules {
  readonly linear: readonly string[];
  readonly layerNorms: readonly string[];
}

/** The file for a folder of these tensors; null when none of them is quantized. */
export function modelOptState(
  config: NVIDIAModelOptConfig,
  written: TensorHeaders,
  modules: QuantizerModules,
): StateFile | null {
  const first = modules.linear.find((module) => isModelOptWeight(`${module}.weight`, written));
  if (first === undefined) return null;
  const weight = layerOf(first, written, config, DEFAULTS).weight;
  const layers = modules.linear.map((module) => layerOf(module, written, config, weight));
  const inputs = config.activationType && activationSettings(config.activationType);
  const state = { layers, layerNorms: modules.layerNorms, weight, inputs };
  const modes = [
    mode("quantize", quantizeConfig(state), { quantizer_state: quantizers(state, false) }),
    mode("max_calibrate", CALIBRATION, { quantizer_state: quantizers(state, true) }),
    mode("real_quantize", { compress: { "*": true }, quant_gemm: true }, compressed(layers)),
  ];
  const content = { modelopt_state_dict: modes, modelopt_version: VERSION };
  return { name: MODELOPT_STATE_NAME, content };
}

/** All that the modes speak of. */
interface State extends Pick<QuantizerModules, "layerNorms"> {
  readonly layers: readonly Layer[];
  readonly weight: Settings;
  /** Of activations; null when these stay in float. */
  readonly inputs: Settings | null;
}

function mode(name: string, config: Dict, metadata: Dict): PythonTuple {
  return new PythonTuple([name, { config, metadata }]);
}

/** The config that gives a model these quantizers: all off, then by kind, then what stays dense off again. */
function quantizeConfig({ layers, layerNorms, weight, inputs }: State): Dict {
  const dense = layers.filter(({ stored }) => stored === null).map(({ module }) => module);
  const quantConfig = [
    entry("*", null),
    entry("*weight_quantizer", weight),
    ...(inputs ? [entry("*input_quantizer", inputs)] : []),
    ...[...dense, ...layerNorms].sort().map((module) => entry(`${module}.*`, null)),
  ];
  return { algorithm: "max", effective_bits: null, quant_cfg: quantConfig };
}

function entry(pattern: string, settings: Settings | null): Dict {
  const cfg = settings && attributeConfig(settings);
  return { cfg, enable: settings !== null, parent_class: null, quantizer_name: pattern };
}

/** Of the "max" calibration that the ranges come from. */
const CALIBRATION: Dict = {
  distributed_sync: true,
  layerwise: {
    calib_mutates_weights: true,
    checkpoint_dir: null,
    enable: false,
    get_qdq_activations_from_prev_layer: false,
    save_every: 1,
  },
  method: "max",
  moe_calib_experts_ratio: null,
  shared_states: null,
  skip_forward_without_activation_calib: false,
  sync_expert_weight_amax: false,
};

/** Every quantizer by its name, before or after calibration. */
function quantizers({ layers, layerNorms, inputs }: State, isCalibrated: boolean): Dict {
  const input = inputs ?? DEFAULTS;
  const all: [string, Dict][] = layers.flatMap((layer): [string, Dict][] => {
    const { module, stored, inputAmax } = layer;
    const isRounded = inputs !== null && stored !== null;
    const amax = isCalibrated && isRounded && inputAmax ? [["_amax", inputAmax] as const] : [];
    return [
      [`${module}.input_quantizer`, attributes(input, { isEnabled: isRounded, buffers: amax })],
      [`${module}.output_quantizer`, attributes(DEFAULTS)],
      [`${module}.weight_quantizer`, weightQuantizer(layer, isCalibrated ? "range" : "none")],
    ];
  });
  const norms = layerNorms.flatMap((module): [string, Dict][] => [
    [`${module}.input_quantizer`, attributes(input)],
    [`${module}.output_quantizer`, attributes(DEFAULTS)],
  ]);
  return Object.fromEntries([...all, ...norms]);
}

/** The weights' quantizers and the packed weights, once weights are compressed. */
function compressed(layers: readonly Layer[]): Dict {
  const quantizers = layers.map((layer) => [layer.module, weightQuantizer(layer, "all")] as const);
  const weights = layers.flatMap(({ module, stored, packed }) =>
    stored ? [[module, packedWeight(stored, packed)] as const] : []
  );
  return {
    real_quantizer_state: Object.fromEntries(quantizers),
    q_tensor_state: Object.fromEntries(weights),
  };
}
