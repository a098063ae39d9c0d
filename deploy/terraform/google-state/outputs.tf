output "lake_bucket" {
  description = "Bucket of lake and models"
  value       = google_storage_bucket.lake.name
}

output "database_host" {
  description = "POSTGRES_HOST of deploy/.env"
  value       = google_sql_database_instance.taxifare.private_ip_address
}

output "subnetwork" {
  description = "Where the machine is"
  value       = google_compute_subnetwork.taxifare.id
}

output "network" {
  description = "Whose firewall lets people in"
  value       = google_compute_network.taxifare.name
}

output "image_repository" {
  description = "Registry that images are pulled from"
  value       = google_artifact_registry_repository.images.name
}

output "environment_secret" {
  description = "Secret with deploy/.env"
  value       = google_secret_manager_secret.environment.secret_id
}
