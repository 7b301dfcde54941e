// What the console's server tells; the shapes are those of lateen.console.graph and lateen.console.server.

export type GraphKind = 'versionedApp' | 'app' | 'workload' | 'service'

export interface Node {
  id: string
  kind: 'app' | 'service' | 'workload' | 'external' | 'unknown'
  name: string
  namespace: string
  app?: string
  version?: string
  workload?: string
  parent?: string
  in: number
  out: number
  errorRate: number
}

export interface Edge {
  id: string
  source: string
  target: string
  protocol: string
  requests: number
  rate: number
  errorRate: number
  codes: Record<string, number>
  flags: Record<string, number>
  bytesRate: number
  connections: number
  mtls: number | null
  p50: number | null
  p95: number | null
  p99: number | null
  now: number
  nowErrors: number
}

export interface Graph {
  at: number
  window: number
  proxies: number
  failures: Record<string, string>
  nodes: Node[]
  edges: Edge[]
}

export interface Finding {
  code: string
  level: 'Error' | 'Warning' | 'Info'
  object: string
  text: string
}

export interface Namespace {
  name: string
  labels: Record<string, string>
  apps: number
  healthy: number
  meshed: number
  pods: number
  config: number
  errors: number
  warnings: number
  findings: Finding[]
  mtls: string
  traffic: { requests: number; errors: number }
}

export interface Pod {
  name: string
  namespace: string
  containers: string[]
  ready: boolean
}

const ROOT = '/kiali/api'

async function get<T>(path: string): Promise<T> {
  const answer = await fetch(ROOT + path)
  if (!answer.ok) throw new Error((await answer.text()) || `HTTP ${answer.status}`)
  return (await answer.json()) as T
}

export const namespaces = () => get<Namespace[]>('/namespaces')

export function pods(node: Node): Promise<Pod[]> {
  const query = new URLSearchParams({ namespace: node.namespace })
  if (node.app) query.set('app', node.app)
  if (node.version) query.set('version', node.version)
  return get<Pod[]>(`/pods?${query}`)
}

/** Calls `seen` with each new graph; returns how to stop. */
export function watchGraph(
  question: { kind: GraphKind; namespaces: string[]; window: number },
  seen: (graph: Graph) => void,
  failed: (text: string) => void,
): () => void {
  const query = new URLSearchParams({
    kind: question.kind,
    namespaces: question.namespaces.join(','),
    window: String(question.window),
  })
  const source = new EventSource(`${ROOT}/graph/stream?${query}`)
  source.onmessage = (event) => seen(JSON.parse(event.data as string) as Graph)
  source.onerror = () => failed('The collector does not answer. Is it there? kubectl apply -f samples/addons')
  return () => source.close()
}

export function watchLog(pod: Pod, container: string, line: (text: string) => void, failed: (text: string) => void) {
  const path = `${ROOT}/pods/${pod.namespace}/${pod.name}/log?container=${encodeURIComponent(container)}`
  const source = new EventSource(path)
  source.onmessage = (event) => line(JSON.parse(event.data as string) as string)
  source.addEventListener('failure', (event) => {
    failed(JSON.parse((event as MessageEvent).data as string) as string)
    source.close()
  })
  return () => source.close()
}
