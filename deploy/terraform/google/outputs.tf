output "machine" {
  description = "For gcloud compute ssh --tunnel-through-iap"
  value       = google_compute_instance.taxifare.name
}

output "service_account" {
  description = "Who the software is"
  value       = google_service_account.taxifare.email
}

output "workload_identity_provider" {
  description = "Variable GOOGLE_IDENTITY_PROVIDER of the environment at GitHub"
  value       = google_iam_workload_identity_pool_provider.github.name
}

output "release_account" {
  description = "Variable GOOGLE_RELEASE_ACCOUNT of the environment at GitHub"
  value       = google_service_account.release.email
}
