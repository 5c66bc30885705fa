{{/* The operator is one per cluster, so its name is fixed: a second release is refused instead of fighting. */}}
{{- define "paceline.name" -}}
paceline-operator
{{- end }}

{{- define "paceline.selector" -}}
app.kubernetes.io/name: {{ include "paceline.name" . }}
{{- end }}

{{- define "paceline.labels" -}}
{{ include "paceline.selector" . }}
app.kubernetes.io/part-of: paceline
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ .Chart.Name }}-{{ .Chart.Version }}
{{- end }}

{{/* An image reference: called with (dict "root" $ "image" .Values.images.router). */}}
{{- define "paceline.image" -}}
{{ .image.repository }}:{{ .image.tag | default .root.Values.images.tag | default .root.Chart.AppVersion }}
{{- end }}
