{{/* The operator's name: the release's, unless that does not say what it is. */}}
{{- define "asyncppo.name" -}}
{{- $name := ternary .Release.Name (printf "%s-asyncppo" .Release.Name) (contains "asyncppo" .Release.Name) -}}
{{- $name | trunc 52 | trimSuffix "-" -}}
{{- end }}

{{- define "asyncppo.selector" -}}
app.kubernetes.io/name: asyncppo-operator
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{- define "asyncppo.labels" -}}
{{ include "asyncppo.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ .Chart.Name }}-{{ .Chart.Version }}
{{- end }}

{{- define "asyncppo.account" -}}
{{- if .Values.serviceAccount.create -}}
{{- .Values.serviceAccount.name | default (include "asyncppo.name" .) -}}
{{- else -}}
{{- .Values.serviceAccount.name | default "default" -}}
{{- end -}}
{{- end }}

{{- define "asyncppo.image" -}}
{{ .Values.image.repository }}:{{ .Values.image.tag | default .Chart.AppVersion }}
{{- end }}

{{/* What the operator needs wherever jobs are; a test compares it with what the operator asks for (asyncppo_operator.rights). */}}
{{- define "asyncppo.rules" -}}
- apiGroups: [asyncppo.io]
  resources: [asyncppojobs]
  verbs: [get, list, watch, delete]
- apiGroups: [asyncppo.io]
  resources: [asyncppojobs/status]
  verbs: [patch]
- apiGroups: [""]
  resources: [pods]
  verbs: [get, list, watch, delete]
- apiGroups: [apps]
  resources: [statefulsets]
  verbs: [get, list, watch, create, patch, delete]
- apiGroups: [""]
  resources: [services]
  verbs: [get, list, watch, create, patch, delete]
- apiGroups: [""]
  resources: [configmaps]
  verbs: [get, list, watch, create, patch]
- apiGroups: [""]
  resources: [secrets]
  verbs: [get, list, watch, create]
- apiGroups: [""]
  resources: [serviceaccounts]
  verbs: [get, list, watch, create, patch]
- apiGroups: [""]
  resources: [persistentvolumeclaims]
  verbs: [get, list, watch, create, patch]
- apiGroups: [networking.k8s.io]
  resources: [networkpolicies]
  verbs: [get, list, watch, create, patch, delete]
- apiGroups: [policy]
  resources: [poddisruptionbudgets]
  verbs: [get, list, watch, create, patch, delete]
- apiGroups: [""]
  resources: [events]
  verbs: [get, list, watch, create, patch]
{{- end }}
