/**
 * What a quantization method is to the rest: an object that says how a weight will be stored, makes it
 * from a dense one, and reads and writes the tensors of its Python library. A new method is a file with
 * such an object and a row in `auto.ts`.
 */

import type { WeightInfo } from "../ops/graph.ts";
import type { DType } from "../tensor/dtype.ts";
import type { HostTensor } from "../tensor/host_tensor.ts";
import type { Piece, PieceMemory } from "../tensor/piece_memory.ts";
import type { ScratchBytes } from "../tensor/scratch_bytes.ts";
import type { Shape } from "../tensor/shape.ts";
import type { GgufBlockType } from "./gguf_types.ts";
import type { Pause } from "./pause.ts";
import type { JsonValue } from "./python_json.ts";
import type { PickleValue } from "./python_pickle.ts";
import type { QuantizedLayout, QuantizedTensor } from "./quantized_tensor.ts";
import type { ModelLibrary } from "./skip_modules.ts";

/** A config of a method, as a checkpoint's config.json or the caller gives it. */
export interface QuantizationConfig {
  /** The method as config.json names it, such as "bitsandbytes". */
  readonly quantMethod: string;
  /** The key of the method in Diffusers' mapping, such as "bitsandbytes_4bit". */
  readonly backend: string;
  /** Found by the types of tensors alone: what the caller wants to quantize to counts instead. */
  readonly givesWay?: boolean;
  /** The dictionary that Diffusers writes into config.json, in its snake_case. */
  toDict(): { readonly [key: string]: JsonValue };
  /** The same with plain numbers, for JSON.stringify. */
  toJSON(): unknown;
}

/** What the headers of a checkpoint say. */
export interface TensorHeaders {
  readonly entries: ReadonlyMap<string, TensorHeader>;
  /** The text pairs of the files' headers; torchao says there what each weight is. */
  readonly metadata?: Readonly<Record<string, string>>;
}

/** What a checkpoint must offer; `Checkpoint` of src/io does. */
export interface TensorReader extends TensorHeaders {
  /**
   * `packed`: the type is only a view of packed codes, which may look like NaN. `unchecked`: the caller looks for NaN
   * and infinity. `scratch`: where the tensor lies until that is reset.
   */
  read(
    name: string,
    options?: { shared?: boolean; packed?: boolean; unchecked?: boolean; scratch?: ScratchBytes },
  ): Promise<HostTensor>;
  /** Passes a tensor through piece memory in whole elements or blocks; absent where all is in memory anyway. */
  readPieces?(
    name: string,
    through: PieceMemory,
    take: (piece: Piece) => void,
    options?: { packed?: boolean },
  ): Promise<void>;
}

/** A reader that passes tensors through piece memory. */
export type PieceReader = TensorReader & Required<Pick<TensorReader, "readPieces">>;

/** Takes bytes of a tensor as they come; they are valid during the call and belong at byte `start` of it. */
export type PutBytes = (bytes: Uint8Array, start: number) => void;

/** A quantized matrix whose codes went another way. */
export type StreamedTensor = Omit<QuantizedTensor, "codes">;

/** What a header says of a tensor. */
export interface TensorHeader {
  readonly dtype: DType;
  readonly shape: Shape;
  /** The file, for messages. */
  readonly file?: string;
  /** The blocks of a GGUF tensor; its type is uint8 then and its rows count bytes. */
  readonly ggufType?: GgufBlockType;
}

/** A tensor of the source, and whether it is written quantized: what a file's metadata may speak of. */
export interface WrittenTensor {
  readonly name: string;
  /** Its type before quantizing. */
  readonly dtype: DType;
  readonly shape: Shape;
  readonly quantized: boolean;
}

/** A file that a library keeps beside the weights, in the container of torch.save. */
export interface StateFile {
  /** Its name in the folder. */
  readonly name: string;
  readonly content: PickleValue;
}

/** A tensor of a library's state dict. */
export interface NamedTensor {
  readonly name: string;
  readonly tensor: HostTensor;
  /** The blocks that a GGUF file is to hold; the tensor is uint8 then. */
  readonly ggufType?: GgufBlockType;
}

/** A quantized matrix with what its library stores beside it, so that nothing is lost on writing. */
export interface EncodedWeight {
  readonly tensor: QuantizedTensor;
  /** The type of the dense weight it was made from. */
  readonly dtype: DType;
  /** What its library calls the way it is stored, where it knows several. */
  readonly form?: string;
  /** Tensors, by what follows the module's name, to be written as they were read. */
  readonly verbatim?: ReadonlyMap<string, HostTensor>;
}

/** A method bound to a config. */
export interface Quantizer {
  readonly config: QuantizationConfig;
  /** Whether config.json says nothing of the method, because Diffusers could not load such a folder then. */
  readonly configless?: boolean;
  /** Whether what a quantized checkpoint holds dense is still to be quantized while it loads. */
  readonly quantizesRest?: boolean;
  /** Whether a linear layer (its dotted module name) stays dense. */
  skips(module: string): boolean;
  /**
   * How a dense weight of this shape and type (float32 when absent) will be stored; null where the
   * method leaves such a shape dense. The name matters to methods that mix formats.
   */
  describe(shape: Shape, dtype?: DType, name?: string): WeightInfo | null;
  /** Quantizes a dense matrix; NaN or infinity throws `non_finite_weight`. */
  quantize(name: string, dense: HostTensor, pause: Pause): Promise<EncodedWeight>;
  /**
   * The weight that a tensor of a checkpoint holds, where the library stores it under another name
   * (torchao: X._weight_qdata is X.weight). The names are the same when this is absent.
   */
  weightOf?(tensor: string, checkpoint: TensorReader): string;
  /** Whether this tensor of a checkpoint only accompanies a quantized weight. */
  isCompanion(name: string, checkpoint: TensorReader): boolean;
  /** Whether the checkpoint holds this weight quantized by the method. */
  isStored(name: string, checkpoint: TensorReader): boolean;
  /** How the checkpoint stores a quantized weight; reads no more than its small companions. */
  describeStored(name: string, checkpoint: TensorReader): Promise<WeightInfo>;
  /** Reads a quantized weight with its companions. */
  read(name: string, checkpoint: TensorReader): Promise<EncodedWeight>;
  /**
   * The same with the codes given to `put`, without the memory for them; null, without a call, where they do
   * not lie in their order, and absent where they never do.
   */
  stream?(
    name: string,
    checkpoint: PieceReader,
    put: PutBytes,
    scratch?: ScratchBytes,
  ): Promise<StreamedTensor | null>;
  /** The library's tensors of a weight, in the order of its state dict. */
  write(name: string, weight: EncodedWeight): NamedTensor[];
  /** The type that a tensor which stays dense is rounded to as well; null when it is left alone. */
  storageType?(name: string, shape: Shape): DType | null;
  /** The dense weight in its own type; null where the library computes it in float32 as the layout does. */
  dequantize?(weight: EncodedWeight): HostTensor | null;
  /** What the library puts into the header of the weights' files. */
  fileMetadata?(tensors: readonly WrittenTensor[]): Readonly<Record<string, string>>;
  /** The file that the library wants beside the weights of a folder, once these are written; null for none. */
  stateFile?(written: TensorHeaders): StateFile | null;
}

/** What a model class says of its modules. */
export interface ModelModules {
  /** What its _skip_layerwise_casting_patterns of Diffusers are. */
  readonly skipLayerwiseCastingPatterns?: readonly string[];
  /** The Python class of a module ("" for the model); undefined where there is none of the name. */
  classOfModule?(module: string): string | undefined;
  /** Its LayerNorms, which may have no weights that name them, from the names of its tensors. */
  layerNorms?(tensors: Iterable<string>): readonly string[];
  /** Few weights that matter to everything: they stay dense when a config has no skip list. */
  readonly outerModules?: readonly string[];
}

/** What a quantizer must know of the component. */
export interface QuantizerTarget {
  /** The Python library that loads such a component; skip lists are matched as it matches them. */
  readonly library: ModelLibrary;
  /** Modules that the model class keeps in float32 (its _keep_in_fp32_modules). */
  readonly keepInFloat32: readonly string[];
  /** The names of all its tensors, for methods that mix formats by layer. */
  readonly tensors?: Iterable<string>;
  /** What its model class says of modules. */
  readonly modules?: ModelModules;
}

/** What can be done with a format. */
export interface FormatCapabilities {
  /** Dense weights are quantized while they load. */
  readonly onTheFly: boolean;
  /** What the method's library wrote is read. */
  readonly load: boolean;
  /** What the method's library reads is written. */
  readonly save: boolean;
}

/** A `METHOD:FORMAT` of the command line. */
export interface MethodFormat {
  readonly name: string;
  readonly description: string;
  config(): QuantizationConfig;
  /** What cannot be done with it, by a false; everything can when absent. */
  readonly capabilities?: Partial<FormatCapabilities>;
}

/** How the configs of a method list the modules that stay dense. */
export interface SkipList {
  /** The list's key in config.json. */
  readonly key: string;
  /** Entries that may mean a module with these linear layers, the usual one first. */
  spellings(module: string, layers: readonly string[]): readonly string[];
  /** The config with this list, where its dictionary does not say all of it. */
  replaced?(config: QuantizationConfig, entries: readonly string[]): QuantizationConfig;
}

/** A method: what `auto.ts` lists. */
export interface Method {
  readonly name: string;
  /** Its keys in Diffusers' mapping. */
  readonly backends: readonly string[];
  /** Whether Transformers has a config with the same arguments, as `quantBackend` demands. */
  readonly sharedWithTransformers: boolean;
  /** Whether the config is of this method. */
  accepts(config: QuantizationConfig): boolean;
  /** Throws `quantization_config`. */
  fromDict(dict: Readonly<Record<string, unknown>>): QuantizationConfig;
  create(config: QuantizationConfig, target: QuantizerTarget): Quantizer;
  /** The name of the file that its library keeps beside weights: `Quantizer.stateFile`. */
  readonly stateFileName?: string;
  /** The list of modules that stay dense, where its configs have one. */
  readonly skipList?: SkipList;
  /** A config dictionary, when the keys of a checkpoint show that it was quantized by this method. */
  detect(checkpoint: TensorReader): Record<string, unknown> | null;
  readonly formats: readonly MethodFormat[];
}

/** The module of a weight: its name without the last component. */
export function moduleOf(weight: string): string {
  return weight.slice(0, weight.lastIndexOf("."));
}

/** The info of a quantized weight whose activations stay float. */
export function weightOnlyInfo(shape: Shape, layout: QuantizedLayout): WeightInfo {
  return { shape, format: { kind: "quantized", layout }, activations: { kind: "float" } };
}
