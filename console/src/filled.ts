// Queries with variables, which values of labels take the place of.

const quoted = (value: string) => value.replace(/[\\"]/g, '\\$&')

/** `$name` becomes the value of that name, all at once: no value is taken for a variable, or ends the text that it is in. */
export const filled = (text: string, values: Record<string, string>) =>
  text.replace(/\$(\w+)/g, (all, name: string) => (Object.hasOwn(values, name) ? quoted(values[name]!) : all))
