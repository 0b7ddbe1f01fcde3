/** Sends a step to its op. */

import { runAttention } from "./attention.ts";
import { runConv2d } from "./conv2d.ts";
import { runCopy } from "./copy.ts";
import { runBinary, runUnary } from "./elementwise.ts";
import { runGather } from "./gather.ts";
import { runHeadNormRope } from "./head_norm_rope.ts";
import { runLinear } from "./linear.ts";
import { runMatmul } from "./matmul.ts";
import { runNorm } from "./norm.ts";
import { runReduce } from "./reduce.ts";
import type { StepContext } from "./step_context.ts";
import { runUnpack } from "./unpack.ts";

/** Runs one step; what it borrowed is given back, whether it succeeds or not. */
export function runStep(context: StepContext): void {
  try {
    dispatch(context);
  } finally {
    context.release();
  }
}

function dispatch(context: StepContext): void {
  const { step } = context;
  switch (step.op) {
    case "copy":
      return runCopy(context);
    case "unary":
      return runUnary(context, step.attributes);
    case "binary":
      return runBinary(context, step.attributes);
    case "reduce":
      return runReduce(context, step.attributes);
    case "gather":
      return runGather(context);
    case "matmul":
      return runMatmul(context, step.attributes);
    case "unpack":
      return runUnpack(context);
    case "conv2d":
      return runConv2d(context, step.attributes);
    case "linear":
      return runLinear(context, step.attributes);
    case "norm":
      return runNorm(context, step.attributes);
    case "attention":
      return runAttention(context, step.attributes);
    case "headNormRope":
      return runHeadNormRope(context, step.attributes);
  }
}
