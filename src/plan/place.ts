/**
 * Placement: storages become buffers at fixed offsets of one arena. Temporaries whose lives do not
 * meet share bytes; outputs of elementwise ops take over their input's bytes where it dies.
 */

import { type Graph, type GraphNode, type Storage, Tensor } from "../ops/graph.ts";
import type { PlanBuffer } from "./plan.ts";

/** Alignment of every buffer, in bytes: a cache line. */
export const ALIGNMENT = 64;

/** The buffers of a graph, and which of them a storage became. */
export interface Placement {
  readonly buffers: PlanBuffer[];
  readonly indexOf: ReadonlyMap<Storage, number>;
  readonly arenaBytes: number;
}

/** A region that is needed during some steps, and where it was put. */
export interface Life {
  /** A multiple of the alignment. */
  readonly bytes: number;
  readonly firstStep: number;
  readonly lastStep: number;
  offset: number;
}

interface StorageLife extends Life {
  readonly storage: Storage;
  readonly role: PlanBuffer["role"];
  firstStep: number;
  lastStep: number;
}

/** Gives each storage of the graph its place. */
export function place(graph: Graph): Placement {
  const alias = reuseInPlace(graph);
  const lives = livesOf(graph, alias);
  const arenaBytes = assignOffsets(lives);
  const order = new Map(lives.map((life, index) => [life.storage, index]));
  const indexOf = new Map<Storage, number>(order);
  for (const storage of alias.keys()) indexOf.set(storage, order.get(resolve(alias, storage))!);
  const buffers = lives.map(({ bytes, role, offset, firstStep, lastStep }) => ({
    role,
    bytes,
    offset,
    firstStep,
    lastStep,
  }));
  return { buffers, indexOf, arenaBytes };
}

/** Bytes of a storage's buffer; all elements are four bytes wide. */
function bytesOf(storage: Storage): number {
  return Math.max(ALIGNMENT, Math.ceil(storage.size * 4 / ALIGNMENT) * ALIGNMENT);
}

/** The operand each op may write exactly over. */
const OVERWRITES: Partial<Record<GraphNode["op"], number>> = {
  unary: 0,
  binary: 0,
  norm: 0,
  headNormRope: 0,
  linear: 4,
  conv2d: 3,
};

/** Storages that take over another's bytes. */
function reuseInPlace(graph: Graph): Map<Storage, Storage> {
  const alias = new Map<Storage, Storage>();
  const lastRead = lastReads(graph, alias);
  const pinned = new Set([...graph.outputs.values()].map((tensor) => tensor.storage));
  graph.nodes.forEach((node, step) => {
    const operand = OVERWRITES[node.op];
    const input = operand === undefined ? null : node.inputs[operand];
    if (!(input instanceof Tensor) || !input.isWhole || !node.output.isWhole) return;
    const from = resolve(alias, input.storage);
    const to = node.output.storage;
    if (from.role !== "temporary" || to.role !== "temporary" || alias.has(to)) return;
    if (pinned.has(from) || from.size !== to.size || from === to) return;
    if (lastRead.get(from) !== step || readsTwice(node, from, alias)) return;
    if (isWrittenBefore(graph, to, step)) return;
    alias.set(to, from);
    lastRead.set(from, lastRead.get(to) ?? step);
    if (pinned.has(to)) pinned.add(from);
  });
  return alias;
}

function resolve(alias: ReadonlyMap<Storage, Storage>, storage: Storage): Storage {
  let current = storage;
  while (alias.has(current)) current = alias.get(current)!;
  return current;
}

function lastReads(graph: Graph, alias: ReadonlyMap<Storage, Storage>): Map<Storage, number> {
  const last = new Map<Storage, number>();
  graph.nodes.forEach((node, step) => {
    for (const input of node.inputs) {
      if (input instanceof Tensor) last.set(resolve(alias, input.storage), step);
    }
  });
  return last;
}

function readsTwice(
  node: GraphNode,
  storage: Storage,
  alias: ReadonlyMap<Storage, Storage>,
): boolean {
  const reads = node.inputs.filter((input) =>
    input instanceof Tensor && resolve(alias, input.storage) === storage
  );
  return reads.length > 1;
}

function isWrittenBefore(graph: Graph, storage: Storage, step: number): boolean {
  return graph.nodes.slice(0, step).some((node) => node.output.storage === storage);
}

/** First and last step of each storage; inputs, outputs and constants live throughout. */
function livesOf(graph: Graph, alias: ReadonlyMap<Storage, Storage>): StorageLife[] {
  const lives = new Map<Storage, StorageLife>();
  const end = Math.max(0, graph.nodes.length - 1);
  const whole = (tensor: Tensor, role: PlanBuffer["role"]) => {
    const storage = resolve(alias, tensor.storage);
    lives.set(storage, lifeOf(storage, role, 0, end));
  };
  for (const { tensor } of graph.constants) whole(tensor, "constant");
  for (const tensor of graph.inputs.values()) whole(tensor, "input");
  for (const tensor of graph.outputs.values()) {
    if (tensor.storage.role === "temporary") whole(tensor, "output");
  }
  graph.nodes.forEach((node, step) => {
    for (const tensor of [...node.inputs, node.output]) {
      if (tensor instanceof Tensor) touch(lives, resolve(alias, tensor.storage), step);
    }
  });
  return [...lives.values()];
}

function lifeOf(
  storage: Storage,
  role: PlanBuffer["role"],
  firstStep: number,
  lastStep: number,
): StorageLife {
  return { storage, role, bytes: bytesOf(storage), firstStep, lastStep, offset: 0 };
}

function touch(lives: Map<Storage, StorageLife>, storage: Storage, step: number): void {
  const life = lives.get(storage);
  if (!life) lives.set(storage, lifeOf(storage, "temporary", step, step));
  else if (life.role === "temporary") life.lastStep = step;
}

/** Largest first, each at the lowest offset free during its life. Returns the bytes of all. */
export function assignOffsets(lives: readonly Life[]): number {
  const placed: Life[] = []; // by offset
  let arenaBytes = 0;
  const bySize = [...lives].sort((a, b) => b.bytes - a.bytes);
  for (const life of bySize) {
    const { bytes } = life;
    let offset = 0;
    for (const other of placed) {
      if (other.lastStep < life.firstStep || other.firstStep > life.lastStep) continue;
      if (other.offset >= offset + bytes) break;
      offset = Math.max(offset, other.offset + other.bytes);
    }
    life.offset = offset;
    const position = placed.findIndex((other) => other.offset > offset);
    placed.splice(position < 0 ? placed.length : position, 0, life);
    arenaBytes = Math.max(arenaBytes, offset + bytes);
  }
  return arenaBytes;
}
