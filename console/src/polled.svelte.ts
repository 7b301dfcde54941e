// What a page asks for again and again.

export const says = (e: unknown) => (e instanceof Error ? e.message : String(e))

/** Calls at once and then in steps; returns how to stop. */
export function every(ms: number, ask: () => unknown): () => void {
  void ask()
  const timer = setInterval(() => void ask(), ms)
  return () => clearInterval(timer)
}

/** The latest answer, and why there is none. */
export class Polled<T> {
  value = $state.raw<T | null>(null)
  failure = $state('')

  /** To be returned by an effect; what `ask` reads before it waits makes it begin anew. */
  start(ask: () => Promise<T>, ms = 3000): () => void {
    this.value = null
    let current = true
    const stop = every(ms, () =>
      ask().then(
        (found) => {
          if (!current) return
          this.value = found
          this.failure = ''
        },
        (e: unknown) => {
          if (current) this.failure = says(e)
        },
      ),
    )
    return () => {
      current = false
      stop()
    }
  }
}
