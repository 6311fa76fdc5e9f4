{{- define "promptwire.name" -}}
{{- if contains .Chart.Name .Release.Name -}}
{{- .Release.Name | trunc 50 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-%s" .Release.Name .Chart.Name | trunc 50 | trimSuffix "-" -}}
{{- end -}}
{{- end -}}

{{/* What selects the pods of a component. Takes (list $ "api"). */}}
{{- define "promptwire.selector" -}}
app.kubernetes.io/name: {{ (index . 0).Chart.Name }}
app.kubernetes.io/instance: {{ (index . 0).Release.Name }}
app.kubernetes.io/component: {{ index . 1 }}
{{- end -}}

{{- define "promptwire.labels" -}}
{{ include "promptwire.selector" . }}
app.kubernetes.io/version: {{ (index . 0).Values.images.tag | quote }}
app.kubernetes.io/managed-by: {{ (index . 0).Release.Service }}
helm.sh/chart: {{ printf "%s-%s" (index . 0).Chart.Name (index . 0).Chart.Version }}
{{- end -}}

{{- define "promptwire.metadata" -}}
name: {{ include "promptwire.name" (index . 0) }}-{{ index . 1 }}
namespace: {{ (index . 0).Release.Namespace }}
labels:
  {{- include "promptwire.labels" . | nindent 2 }}
{{- end -}}

{{- define "promptwire.image" -}}
image: {{ printf "%s/promptwire-%s:%s" (index . 0).Values.images.registry (index . 1) (index . 0).Values.images.tag }}
imagePullPolicy: {{ (index . 0).Values.images.pullPolicy }}
{{- end -}}

{{/* What every pod has. Kubernetes would otherwise set variables such as FLOWER_PORT for each service. */}}
{{- define "promptwire.pod" -}}
automountServiceAccountToken: false
enableServiceLinks: false
securityContext:
  runAsNonRoot: true
  runAsUser: 10001
  runAsGroup: 10001
  seccompProfile: {type: RuntimeDefault}
{{- with (index . 0).Values.images.pullSecrets }}
imagePullSecrets:
  {{- range . }}
  - name: {{ . }}
  {{- end }}
{{- end }}
{{- with (index . 0).Values.nodeSelector }}
nodeSelector: {{- toYaml . | nindent 2 }}
{{- end }}
{{- with (index . 0).Values.tolerations }}
tolerations: {{- toYaml . | nindent 2 }}
{{- end }}
# In memory: a disk might stall.
volumes:
  - name: tmp
    emptyDir: {medium: Memory, sizeLimit: 64Mi}
  - name: shm
    emptyDir: {medium: Memory, sizeLimit: 64Mi}
{{- if and (index . 0).Values.models (has (index . 1) (list "api" "worker")) }}
  - name: models
    configMap: {name: {{ include "promptwire.name" (index . 0) }}-models}
{{- end }}
{{- end -}}

{{/* Pods of a component go to different zones and nodes, where there are some. */}}
{{- define "promptwire.spread" -}}
topologySpreadConstraints:
  {{- range list "topology.kubernetes.io/zone" "kubernetes.io/hostname" }}
  - topologyKey: {{ . }}
    maxSkew: 1
    whenUnsatisfiable: ScheduleAnyway
    labelSelector:
      matchLabels: {{- include "promptwire.selector" $ | nindent 8 }}
  {{- end }}
{{- end -}}

{{- define "promptwire.container" -}}
securityContext:
  allowPrivilegeEscalation: false
  readOnlyRootFilesystem: true
  capabilities: {drop: [ALL]}
volumeMounts:
  - {name: tmp, mountPath: /tmp}
  - {name: shm, mountPath: /dev/shm}
{{- if and (index . 0).Values.models (has (index . 1) (list "api" "worker")) }}
  - {name: models, mountPath: /etc/promptwire, readOnly: true}
{{- end }}
{{- end -}}

{{/* Variables from the secret: (list $ (list required) (list optional)). */}}
{{- define "promptwire.secrets" -}}
{{- $ := index . 0 -}}
{{- range index . 1 }}
- name: {{ . }}
  valueFrom: {secretKeyRef: {name: {{ $.Values.existingSecret }}, key: {{ . }}}}
{{- end }}
{{- range index . 2 }}
- name: {{ . }}
  valueFrom: {secretKeyRef: {name: {{ $.Values.existingSecret }}, key: {{ . }}, optional: true}}
{{- end }}
{{- end -}}

{{/* The file of the models and their keys, for the processes that read it. */}}
{{- define "promptwire.models" -}}
{{- if .Values.models }}
- name: MODELS_FILE
  value: /etc/promptwire/models.toml
{{- $names := list }}
{{- range .Values.models }}
{{- with .api_key_env }}{{ $names = append $names . }}{{ end }}
{{- end }}
{{- include "promptwire.secrets" (list . (without ($names | uniq) "OPENAI_API_KEY" "OPENAI_EMBEDDING_API_KEY") list) }}
{{- end }}
{{- end -}}

{{/* Settings that all processes of the application share. Helm reads numbers as floats: 1048576 would be 1.048576e+06. */}}
{{- define "promptwire.settings" -}}
{{- $host := printf "%s-api" (include "promptwire.name" .) -}}
{{- $in := .Release.Namespace -}}
{{- $hosts := list $host (printf "%s.%s" $host $in) (printf "%s.%s.svc" $host $in) (printf "%s.%s.svc.cluster.local" $host $in) -}}
{{- $settings := dict "LOG_FORMAT" "json" "ALLOWED_HOSTS" (join "," $hosts) -}}
{{- if .Values.ingress.enabled -}}
{{- $_ := set $settings "TRUSTED_PROXIES" "1" -}}
{{- $_ := set $settings "PUBLIC_URL" (printf "https://%s" .Values.ingress.host) -}}
{{- end -}}
- name: APP_ENV
  value: prod
- name: LISTEN_ADDRESS
  value: 0.0.0.0
{{- range $name, $value := merge (deepCopy .Values.settings) $settings }}
- name: {{ $name }}
  value: {{ if and (kindIs "float64" $value) (eq (floor $value) $value) }}{{ int64 $value | quote }}{{ else }}{{ $value | toString | quote }}{{ end }}
{{- end }}
{{- end -}}
