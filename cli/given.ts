/** Options that were given. */

/** The same object without the keys whose value is undefined, so that defaults stay for those. */
export function given<Options extends object>(options: Options): Partial<Options> {
  return Object.fromEntries(
    Object.entries(options).filter(([, value]) => value !== undefined),
  ) as Partial<Options>;
}
