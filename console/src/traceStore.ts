// Asking the store of traces, through the console's server.

import { asked } from './api'
import { says } from './polled.svelte'
import { arranged, type Dropped, type RawTrace } from './traces'

/** What the store says of a trace that it does not have. */
export const MISSING = 'trace not found'

async function get<T>(path: string): Promise<T> {
  try {
    return ((await (await asked(`/tracing${path}`)).json()) as { data: T }).data
  } catch (e) {
    throw new Error(sentence(says(e)))
  }
}

/** Of Jaeger's JSON; the console's own answer is one. */
function sentence(text: string): string {
  try {
    return (JSON.parse(text) as { errors: { msg: string }[] }).errors[0]!.msg
  } catch {
    return text
  }
}

export const services = () => get<string[]>('/services')
export const operations = (service: string) => get<string[]>(`/services/${encodeURIComponent(service)}/operations`)
export const dropped = () => get<Dropped[]>('/dropped-headers?lookback=3600000')
export const find = async (query: URLSearchParams) => (await get<RawTrace[]>(`/traces?${query}`)).map(arranged)
export const one = async (id: string) => arranged((await get<RawTrace[]>(`/traces/${encodeURIComponent(id)}`))[0]!)
