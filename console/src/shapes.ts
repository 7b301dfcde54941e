// Written by tools/shapes.py from lateen.console.shapes; edit that file.

/** What selects series of requests that have failed, in PromQL: any of these. */
export const FAILED = ['response_code=~"5..|0"', 'response_flags=~"(.+,)?NR(,.+)?"', 'grpc_response_status=~"2|4|12|13|14|15"']

/** Rates of $metric over $window, each request counted once, in PromQL; $more are further matchers. */
export const COUNTED = `rate(\$metric{reporter="source"\$more}[\$window]) or rate(\$metric{reporter="destination",source_workload!~"unknown|",source_cluster!~"unknown|"\$more}[\$window]) unless on (source_workload, source_workload_namespace, source_cluster) istio_requests_total{reporter="source"} unless on (source_workload, source_workload_namespace) istio_requests_total{reporter="source",source_cluster=~"unknown|"} or rate(\$metric{reporter="destination",source_workload!~"unknown|",source_cluster=~"unknown|"\$more}[\$window]) unless on (source_workload, source_workload_namespace) istio_requests_total{reporter="source"} or rate(\$metric{reporter="destination",source_workload=~"unknown|",source_principal=~"unknown|",connection_security_policy!="mutual_tls"\$more}[\$window]) * on (destination_workload, destination_workload_namespace, request_protocol) group_left () (1 - (sum by (destination_workload, destination_workload_namespace, request_protocol) (rate(istio_requests_total{reporter="source",connection_security_policy="none"}[\$window])) or 0 * sum by (destination_workload, destination_workload_namespace, request_protocol) (rate(istio_requests_total{reporter="destination",source_workload=~"unknown|",source_principal=~"unknown|",connection_security_policy!="mutual_tls"}[\$window]))) / clamp_min(sum by (destination_workload, destination_workload_namespace, request_protocol) (rate(istio_requests_total{reporter="destination",source_workload=~"unknown|",source_principal=~"unknown|",connection_security_policy!="mutual_tls"}[\$window])), 1e-9) > 0.05)`

export type NodeKind = 'app' | 'service' | 'workload' | 'external' | 'unknown'

export type Level = 'Error' | 'Warning' | 'Info'

export type Unit = 'rps' | 'share' | 'ms' | 'Bps' | 'bytes' | 's' | 'count' | 'cores'

export type State = 'healthy' | 'degraded' | 'down' | 'idle'

export type Badge = 'no-sidecar' | 'fault' | 'circuit-breaker' | 'shift' | 'timeout' | 'retries' | 'mirror' | 'virtual-service' | 'gateway'

export interface Node {
  id: string
  kind: NodeKind
  name: string
  namespace: string
  app?: string
  version?: string
  workload?: string
  parent?: string
  rateIn: number
  rateOut: number
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
  p90: number | null
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
  boxes: string[]
  nodes: Node[]
  edges: Edge[]
}

export interface Badges {
  nodes: Record<string, Badge[]>
}

export interface Change {
  at: number
  kind: string
  namespace: string
  name: string
  what: 'created' | 'changed' | 'deleted'
  by: string
}

export interface History {
  step: number
  rates: number[]
}

export interface Finding {
  code: string
  level: Level
  object: string
  text: string
}

export interface Traffic {
  requests: number
  errors: number
}

export interface App {
  name: string
  state: State
  says: string
}

export interface Namespace {
  name: string
  labels: Record<string, string>
  apps: number
  healthy: number
  unhealthy: App[]
  meshed: number
  pods: number
  config: number
  errors: number
  warnings: number
  found: number
  findings: Finding[]
  mtls: string
  traffic: Traffic
  failure: string
}

export interface Pod {
  name: string
  namespace: string
  containers: string[]
  ready: boolean
  finished: boolean
  says: string
}

export interface PlainCaller {
  name: string
  port: number
  last: string
}

export interface PlainCalls {
  namespace: string
  service: string
  calls: number
  last: number
  callers: PlainCaller[]
  unread: number
}

export interface LogLine {
  container: string
  text: string
  says: string[]
}

export interface Check {
  code: string
  level: Level
  object: string
  text: string
  line: number
  documentation: string
}

export interface Condition {
  type: string
  status: string
  reason: string
  message: string
}

export interface ConfigRow {
  kind: string
  namespace: string
  name: string
  created: string
  findings: number
  worst: string
}

export interface Place {
  kind: string
  name: string
  detail: string
  missing: string
}

export interface ConfigPage {
  kind: string
  namespace: string
  name: string
  created: string
  findings: number
  worst: string
  yaml: string
  checks: Check[]
  conditions: Condition[]
  places: Place[]
}

export interface WorkloadRow {
  namespace: string
  name: string
  kind: string
  app: string
  version: string
  pods: number
  ready: number
  meshed: number
  bare: boolean
  state: State
  says: string
}

export interface ServiceRow {
  namespace: string
  name: string
  host: string
  origin: string
  ports: string[]
  workloads: number
  config: number
  worst: string
}

export interface WorkloadPage {
  namespace: string
  name: string
  kind: string
  app: string
  version: string
  pods: number
  ready: number
  meshed: number
  bare: boolean
  state: State
  says: string
  labels: Record<string, string>
  account: string
  instances: Pod[]
  services: ServiceRow[]
  mtls: string
  ports: Record<string, string>
  decides: string
  config: ConfigRow[]
  findings: Check[]
}

export interface ServicePage {
  namespace: string
  name: string
  host: string
  origin: string
  ports: string[]
  workloads: number
  config: number
  worst: string
  behind: WorkloadRow[]
  addresses: Record<string, string>
  rules: ConfigRow[]
  findings: Check[]
}

export interface ApplicationRow {
  namespace: string
  name: string
  workloads: WorkloadRow[]
  state: State
  says: string
}

export interface ApplicationPage {
  namespace: string
  name: string
  workloads: WorkloadRow[]
  state: State
  says: string
  services: ServiceRow[]
  config: ConfigRow[]
}

export interface ControlPlane {
  state: State
  says: string
  version: string
}

export interface Gateway {
  name: string
  namespace: string
  addresses: Record<string, string>
  examples: Record<string, string>
}

export interface Mesh {
  controlPlane: ControlPlane
  gateways: Gateway[]
  collector: string
}

export interface LimitsForm {
  timeout: string
  attempts: number | null
  perTryTimeout: string
}

export interface FaultForm {
  delay: string
  delayed: number
  status: number
  aborted: number
}

export interface BreakerForm {
  connections: number
  pending: number
  errors: number
  ejection: string
}

export interface Forms {
  weights: Record<string, number> | null
  limits: LimitsForm | null
  fault: FaultForm | null
  breaker: BreakerForm | null
  mode: string
  replaces: Record<string, string[]>
}

export interface Undo {
  kind: string
  namespace: string
  name: string
  yaml: string
  generation: number
}

export interface Applied {
  written: string[]
  failed: Record<string, string>
  yaml: string
  undo: Undo[]
}

export interface Who {
  name: string
  edits: boolean
}

export interface EnvoyTable {
  title: string
  columns: string[]
  rows: string[][]
}

export interface EnvoyPage {
  tables: EnvoyTable[]
  config: string
}

export interface Field {
  type: string
  values: string[]
  required: boolean
  says: string
  idle: string
}

export interface Schema {
  kind: string
  documentation: string
  fields: Record<string, Field>
}

export interface ResourceChange {
  type: string
  name: string
  what: 'added' | 'changed' | 'removed'
  workloads: string[]
  diff: string[]
}

export interface Effect {
  proxies: number
  touched: number
  changes: ResourceChange[]
  left: number
}

export interface BoardQuery {
  expr: string
  legend: string
}

export interface BoardPanel {
  title: string
  unit: Unit
  queries: BoardQuery[]
}

export interface BoardVariable {
  name: string
  title: string
  metric: string
  label: string
}

export interface Board {
  name: string
  title: string
  variables: BoardVariable[]
  panels: BoardPanel[]
}
