// What a page asks for again and again.

export const says = (e: unknown) => (e instanceof Error ? e.message : String(e))

/** Calls `changed` whenever the page comes to the foreground or goes to the background; returns how to stop. */
export function onVisibility(changed: (visible: boolean) => void): () => void {
  const listener = () => changed(!document.hidden)
  document.addEventListener('visibilitychange', listener)
  return () => document.removeEventListener('visibilitychange', listener)
}

/** Calls at once, and then in steps while the page is in the foreground, never before the former call has ended; returns how
 * to stop. The first call is also made in the background: effects depend on what it reads. */
export function every(ms: number, ask: () => unknown): () => void {
  let asking = false
  const look = async () => {
    if (asking) return
    asking = true
    try {
      await ask()
    } finally {
      asking = false
    }
  }
  const again = () => {
    if (!document.hidden) void look()
  }
  void look()
  const timer = setInterval(again, ms)
  const stop = onVisibility(again)
  return () => {
    clearInterval(timer)
    stop()
  }
}

/** The latest answer, and why there is none. */
export class Polled<T> {
  value = $state.raw<T | null>(null)
  failure = $state('')

  /** The answer to the last question; null if that failed, for what must not be out of date. */
  get current(): T | null {
    return this.failure ? null : this.value
  }

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

/** The answer to the latest question, and why there is none; answers to earlier ones come too late. While a question about
 * the same subject waits for its answer, the former answer stays; one about another subject is not shown. */
export class Asked<T> {
  value = $state.raw<T | null>(null)
  failure = $state('')
  private last: Promise<T> | null = null
  private subject = ''

  ask(subject: string, question: Promise<T>): void {
    this.last = question
    if (subject !== this.subject) {
      this.subject = subject
      this.value = null
      this.failure = ''
    }
    question.then(
      (found) => this.settle(question, found, ''),
      (e: unknown) => this.settle(question, null, says(e)),
    )
  }

  private settle(question: Promise<T>, value: T | null, failure: string) {
    if (question !== this.last) return
    this.value = value
    this.failure = failure
  }
}
