/**
 * Capture: a model's forward runs once over symbolic tensors and leaves a list of ops. A tensor is a
 * strided view of a storage, so slices, permutations and broadcasts cost nothing.
 */

import { HalftoneError } from "../errors.ts";
import { contiguousStrides, elementCount, sameShape, type Shape } from "../tensor/shape.ts";
import type { HostTensor } from "../tensor/host_tensor.ts";
import type { ActivationDType, WeightArrangement, WeightFormat } from "../plan/plan.ts";
import type { ActivationMode } from "./activation_mode.ts";
import type { OpAttributes, OpName } from "./op_table.ts";

/** What is known of a weight before it is loaded. */
export interface WeightInfo {
  /** The shape in the checkpoint (of the dense matrix, when quantized). */
  readonly shape: Shape;
  readonly format: WeightFormat;
  /** How a linear layer over this weight treats its activations. */
  readonly activations: ActivationMode;
}

/** The weights of a component by name. */
export interface WeightCatalog {
  lookup(name: string): WeightInfo | undefined;
}

/** A region that ops write and read; several ops may write different parts of one (a concat). */
export interface Storage {
  readonly id: number;
  readonly role: "temporary" | "input" | "constant";
  readonly dtype: ActivationDType;
  /** Elements. */
  readonly size: number;
}

/** A weight as an operand. */
export class Weight {
  /** The name in the checkpoint. */
  readonly name: string;
  /** The shape the ops see. */
  readonly shape: Shape;
  readonly format: WeightFormat;
  readonly arrangement: WeightArrangement;
  readonly activations: ActivationMode;

  constructor(
    name: string,
    shape: Shape,
    format: WeightFormat,
    arrangement: WeightArrangement,
    activations: ActivationMode,
  ) {
    this.name = name;
    this.shape = shape;
    this.format = format;
    this.arrangement = arrangement;
    this.activations = activations;
  }
}

/** A symbolic tensor: a strided view of a storage. */
export class Tensor {
  readonly graph: Graph;
  readonly storage: Storage;
  /** Elements from the storage's start. */
  readonly offset: number;
  readonly shape: Shape;
  /** In elements; 0 repeats. */
  readonly strides: readonly number[];

  constructor(
    graph: Graph,
    storage: Storage,
    offset: number,
    shape: Shape,
    strides: readonly number[],
  ) {
    this.graph = graph;
    this.storage = storage;
    this.offset = offset;
    this.shape = shape;
    this.strides = strides;
  }

  get dtype(): ActivationDType {
    return this.storage.dtype;
  }

  /** Whether the elements lie row-major without gaps. */
  get isContiguous(): boolean {
    const expected = contiguousStrides(this.shape);
    return this.shape.every((d, axis) => d === 1 || this.strides[axis] === expected[axis]);
  }

  /** Whether the view is the whole of its storage, in order. */
  get isWhole(): boolean {
    return this.isContiguous && this.offset === 0 && elementCount(this.shape) === this.storage.size;
  }

  /** The same elements under another shape; axes that do not lie together cannot be merged. */
  reshape(shape: Shape): Tensor {
    if (elementCount(shape) !== elementCount(this.shape)) {
      throw shapeError("Cannot reshape", this.shape, shape);
    }
    const strides = this.isContiguous
      ? contiguousStrides(shape)
      : reshapedStrides(this.shape, this.strides, shape);
    if (!strides) throw shapeError("Cannot reshape a strided view", this.shape, shape);
    return new Tensor(this.graph, this.storage, this.offset, shape, strides);
  }

  /** Elements start..end of one axis. */
  slice(axis: number, start: number, end: number): Tensor {
    if (start < 0 || end > this.shape[axis] || start > end) {
      throw shapeError(`Cannot slice ${start}..${end} of axis ${axis}`, this.shape, undefined);
    }
    const shape = this.shape.with(axis, end - start);
    const offset = this.offset + start * this.strides[axis];
    return new Tensor(this.graph, this.storage, offset, shape, this.strides);
  }

  /** The axes in another order. */
  permute(axes: readonly number[]): Tensor {
    const shape = axes.map((axis) => this.shape[axis]);
    const strides = axes.map((axis) => this.strides[axis]);
    return new Tensor(this.graph, this.storage, this.offset, shape, strides);
  }

  /** Repeats axes of size 1 and adds leading axes, as NumPy does. */
  broadcastTo(shape: Shape): Tensor {
    const missing = shape.length - this.shape.length;
    const strides = shape.map((dimension, axis) => {
      const own = axis < missing ? 1 : this.shape[axis - missing];
      if (own === dimension) return axis < missing ? 0 : this.strides[axis - missing];
      if (own === 1) return 0;
      throw shapeError("Cannot broadcast", this.shape, shape);
    });
    if (missing < 0) throw shapeError("Cannot broadcast", this.shape, shape);
    return new Tensor(this.graph, this.storage, this.offset, shape, strides);
  }
}

/** An operand of a node. */
export type Operand = Tensor | Weight | null;

/** One captured op; passes rewrite these fields. */
export type GraphNode = {
  [name in OpName]: {
    op: name;
    attributes: OpAttributes[name];
    inputs: Operand[];
    output: Tensor;
  };
}[OpName];

/** A captured forward. */
export class Graph {
  readonly name: string;
  readonly catalog: WeightCatalog;
  nodes: GraphNode[] = [];
  readonly inputs: Map<string, Tensor> = new Map();
  readonly outputs: Map<string, Tensor> = new Map();
  readonly constants: { tensor: Tensor; value: HostTensor }[] = [];
  readonly #weights = new Map<string, Weight>();
  #storages = 0;

  constructor(name: string, catalog: WeightCatalog) {
    this.name = name;
    this.catalog = catalog;
  }

  /** A tensor the caller writes before a run. */
  input(name: string, shape: Shape, dtype: ActivationDType = "float32"): Tensor {
    const tensor = this.#view("input", shape, dtype);
    this.inputs.set(name, tensor);
    return tensor;
  }

  /** A tensor whose value is part of the plan; float32 or int32. */
  constant(value: HostTensor): Tensor {
    const dtype = value.dtype === "int32" ? "int32" : "float32";
    const tensor = this.#view("constant", value.shape, dtype);
    this.constants.push({ tensor, value: value.dtype === "int32" ? value : value.cast("float32") });
    return tensor;
  }

  /** A tensor the caller reads after a run. */
  output(name: string, tensor: Tensor): void {
    this.outputs.set(name, tensor);
  }

  /** A new tensor for an op to write. */
  allocate(shape: Shape, dtype: ActivationDType = "float32"): Tensor {
    return this.#view("temporary", shape, dtype);
  }

  /** Whether the checkpoint holds a weight. */
  has(name: string): boolean {
    return this.catalog.lookup(name) !== undefined;
  }

  /**
   * A weight, checked against the shape the model expects (that of the checkpoint, so [out, in, kh, kw]
   * for a convolution). Throws `missing_tensor` or `tensor_shape_mismatch`.
   */
  weight(name: string, expected: Shape, arrangement: WeightArrangement = "rows"): Weight {
    const known = this.#weights.get(name);
    if (known) return known;
    const info = this.catalog.lookup(name);
    if (!info) {
      throw new HalftoneError("missing_tensor", "Cannot find a weight in the checkpoint", {
        tensor: name,
        found: "no tensor of this name",
        expected: `[${expected}]`,
        remedy: "Check that the file belongs to this model and its config.json",
      });
    }
    if (!sameShape(info.shape, expected)) {
      throw new HalftoneError("tensor_shape_mismatch", "Cannot use a weight of this shape", {
        tensor: name,
        found: `[${info.shape}]`,
        expected: `[${expected}]`,
        remedy: "Check that config.json belongs to this checkpoint",
      });
    }
    const weight = arrange(name, info, arrangement);
    this.#weights.set(name, weight);
    return weight;
  }

  /** Appends an op and returns its output. */
  add<Name extends OpName>(
    op: Name,
    attributes: OpAttributes[Name],
    inputs: Operand[],
    output: Tensor,
  ): Tensor {
    this.nodes.push({ op, attributes, inputs, output } as GraphNode);
    return output;
  }

  #view(role: Storage["role"], shape: Shape, dtype: ActivationDType): Tensor {
    const storage = { id: this.#storages++, role, dtype, size: elementCount(shape) };
    return new Tensor(this, storage, 0, shape, contiguousStrides(shape));
  }
}

/** Small and convolution weights are float32 in every backend; matrices keep their stored type. */
function arrange(name: string, info: WeightInfo, arrangement: WeightArrangement): Weight {
  const { shape, activations } = info;
  if (arrangement === "convolution") {
    const [out, channels, height, width] = shape;
    const brought = [out, height, width, channels];
    return new Weight(name, brought, { kind: "dense", dtype: "float32" }, arrangement, activations);
  }
  const format: WeightFormat = shape.length === 1
    ? { kind: "dense", dtype: "float32" }
    : info.format;
  return new Weight(name, shape, format, arrangement, activations);
}

/** Strides of a reshaped strided view, or undefined where the axes do not lie together. */
function reshapedStrides(
  from: Shape,
  strides: readonly number[],
  to: Shape,
): number[] | undefined {
  const result = new Array<number>(to.length).fill(0);
  const axes = from.map((size, axis) => ({ size, stride: strides[axis] }))
    .filter((axis) => axis.size !== 1);
  let remaining = axes.pop();
  for (let axis = to.length - 1; axis >= 0; axis--) {
    if (to[axis] === 1) continue;
    if (!remaining) return undefined;
    while (remaining.size % to[axis] !== 0) {
      const outer = axes.pop();
      if (!outer || outer.stride !== remaining.size * remaining.stride) return undefined;
      remaining = { size: remaining.size * outer.size, stride: remaining.stride };
    }
    result[axis] = remaining.stride;
    remaining = remaining.size === to[axis]
      ? axes.pop()
      : { size: remaining.size / to[axis], stride: remaining.stride * to[axis] };
  }
  return result;
}

function shapeError(message: string, found: Shape, expected: Shape | undefined): HalftoneError {
  return new HalftoneError("plan_invalid", message, {
    found: `[${found}]`,
    expected: expected && `[${expected}]`,
  });
}
