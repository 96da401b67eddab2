{{- define "eastwest.labels" -}}
app.kubernetes.io/name: eastwest
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
{{- end }}
{{- define "eastwest.selector" -}}
app.kubernetes.io/name: eastwest
app.kubernetes.io/component: {{ . }}
{{- end }}
{{- define "eastwest.server" -}}
{{- with .Values.k8sServiceHost }}https://{{ if contains ":" . }}[{{ . }}]{{ else }}{{ . }}{{ end }}:{{ $.Values.k8sServicePort }}{{ end }}
{{- end }}
{{- define "eastwest.corefile" -}}
{{ .Values.dns.configMap | default "eastwest-corefile" }}
{{- end }}
{{- /* Where kubeadm says which address the API server has; not every cluster has these. */ -}}
{{- define "eastwest.apiServer" -}}
- name: kubeadm
  configMap: { name: kubeadm-config, optional: true }
- name: kube-proxy
  configMap: { name: kube-proxy, optional: true }
{{- end }}
