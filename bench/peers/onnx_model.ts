/** ONNX models of one linear layer, x [m, k] -> y [m, n], in the forms onnxruntime runs fast. */

import { packageVersion, requirePackage } from "./packages.ts";

/** The fields of onnx.proto that these models use; numbers as in onnx/onnx:onnx/onnx.proto. */
const SCHEMA = `
syntax = "proto3";
message Attribute { string name = 1; int64 i = 3; int32 type = 20; }
message Node {
  repeated string input = 1;
  repeated string output = 2;
  string op_type = 4;
  repeated Attribute attribute = 5;
  string domain = 7;
}
message Tensor { repeated int64 dims = 1; int32 data_type = 2; string name = 8; bytes raw_data = 9; }
message Dimension { int64 dim_value = 1; }
message Shape { repeated Dimension dim = 1; }
message TensorType { int32 elem_type = 1; Shape shape = 2; }
message Type { TensorType tensor_type = 1; }
message ValueInfo { string name = 1; Type type = 2; }
message Graph {
  repeated Node node = 1;
  string name = 2;
  repeated Tensor initializer = 5;
  repeated ValueInfo input = 11;
  repeated ValueInfo output = 12;
}
message OperatorSet { string domain = 1; int64 version = 2; }
message Model { int64 ir_version = 1; Graph graph = 7; repeated OperatorSet opset_import = 8; }
`;

const TYPES = { float32: 1, uint8: 2, int8: 3, int32: 6 } as const;
const INTEGER_ATTRIBUTE = 2;

/** A node of the graph. */
export interface OnnxNode {
  readonly op: string;
  readonly inputs: readonly string[];
  readonly outputs: readonly string[];
  readonly attributes?: Readonly<Record<string, number>>;
  readonly domain?: "com.microsoft";
}

/** A constant of the graph. */
export interface OnnxConstant {
  readonly name: string;
  readonly dtype: keyof typeof TYPES;
  readonly shape: readonly number[];
  readonly bytes: Uint8Array;
}

/** A model as bytes; its input is "x", its output "y", both float32. */
export function onnxModel(
  nodes: readonly OnnxNode[],
  constants: readonly OnnxConstant[],
  { m, k, n }: { m: number; k: number; n: number },
): Uint8Array {
  packageVersion("protobufjs");
  const protobuf = requirePackage("protobufjs");
  const { root } = protobuf.parse(SCHEMA, { keepCase: true });
  const type = root.lookupType("Model");
  return type.encode(type.fromObject({
    ir_version: 8,
    opset_import: [{ domain: "", version: 17 }, { domain: "com.microsoft", version: 1 }],
    graph: {
      name: "linear",
      node: nodes.map(nodeMessage),
      initializer: constants.map(({ name, dtype, shape, bytes }) => ({
        name,
        dims: shape,
        data_type: TYPES[dtype],
        raw_data: bytes,
      })),
      input: [valueInfo("x", [m, k])],
      output: [valueInfo("y", [m, n])],
    },
  })).finish();
}

function nodeMessage({ op, inputs, outputs, attributes = {}, domain }: OnnxNode) {
  const attribute = Object.entries(attributes)
    .map(([name, i]) => ({ name, i, type: INTEGER_ATTRIBUTE }));
  return { op_type: op, input: inputs, output: outputs, attribute, domain: domain ?? "" };
}

function valueInfo(name: string, shape: readonly number[]) {
  const dim = shape.map((dim_value) => ({ dim_value }));
  return { name, type: { tensor_type: { elem_type: TYPES.float32, shape: { dim } } } };
}
