# What can be made anew: the machine, who it is, and who may reach it. State is the business of ../google-state.
terraform {
  required_version = ">= 1.9"

  required_providers {
    google = {
      source  = "hashicorp/google"
      version = "6.50.0"
    }
  }

  backend "gcs" {
    prefix = "taxifare/machine"
  }
}

provider "google" {
  project = var.project
  region  = var.region
  zone    = var.zone
}

data "terraform_remote_state" "state" {
  backend = "gcs"

  config = {
    bucket = var.terraform_bucket
    prefix = "taxifare/state"
  }
}

locals {
  state = data.terraform_remote_state.state.outputs
}

# The software. Roles as the README has them, each on the one thing it is needed for; no key is ever made.
resource "google_service_account" "taxifare" {
  account_id   = "taxifare-${var.environment}"
  display_name = "taxifare, ${var.environment}"
}

resource "google_storage_bucket_iam_member" "lake" {
  bucket = local.state.lake_bucket
  role   = "roles/storage.objectUser"
  member = google_service_account.taxifare.member
}

resource "google_project_iam_member" "queries" {
  project = var.project
  role    = "roles/bigquery.jobUser"
  member  = google_service_account.taxifare.member
}

resource "google_bigquery_dataset_iam_member" "trips" {
  for_each   = toset(var.trips_dataset == "" ? [] : [var.trips_dataset])
  dataset_id = each.value
  role       = "roles/bigquery.dataViewer"
  member     = google_service_account.taxifare.member
}

resource "google_bigquery_dataset_iam_member" "scored_trips" {
  for_each   = toset(var.scored_trips_dataset == "" ? [] : [var.scored_trips_dataset])
  dataset_id = each.value
  role       = "roles/bigquery.dataEditor"
  member     = google_service_account.taxifare.member
}

resource "google_artifact_registry_repository_iam_member" "images" {
  repository = local.state.image_repository
  location   = var.region
  role       = "roles/artifactregistry.reader"
  member     = google_service_account.taxifare.member
}

resource "google_secret_manager_secret_iam_member" "environment" {
  secret_id = local.state.environment_secret
  role      = "roles/secretmanager.secretAccessor"
  member    = google_service_account.taxifare.member
}

resource "google_compute_instance" "taxifare" {
  name                      = "taxifare-${var.environment}"
  machine_type              = var.machine_type
  tags                      = ["taxifare-${var.environment}"]
  allow_stopping_for_update = true

  boot_disk {
    initialize_params {
      image = var.machine_image
      size  = 100
      type  = "pd-balanced"
    }
  }

  # No address of the internet's: people and workflows come through Identity-Aware Proxy.
  network_interface {
    subnetwork = local.state.subnetwork
  }

  service_account {
    email  = google_service_account.taxifare.email
    scopes = ["cloud-platform"]
  }

  shielded_instance_config {
    enable_secure_boot = true
  }

  metadata = {
    enable-oslogin         = "TRUE"
    block-project-ssh-keys = "TRUE"
  }
}

# Packages and the base's images are fetched from outside; nothing comes in.
resource "google_compute_router" "out" {
  name    = "taxifare-${var.environment}"
  network = local.state.network
}

resource "google_compute_router_nat" "out" {
  name                               = "taxifare-${var.environment}"
  router                             = google_compute_router.out.name
  nat_ip_allocate_option             = "AUTO_ONLY"
  source_subnetwork_ip_ranges_to_nat = "ALL_SUBNETWORKS_ALL_IP_RANGES"
}

resource "google_compute_firewall" "people" {
  name          = "taxifare-${var.environment}-iap"
  network       = local.state.network
  source_ranges = ["35.235.240.0/20"] # Identity-Aware Proxy's own
  target_tags   = ["taxifare-${var.environment}"]

  allow {
    protocol = "tcp"
    ports    = ["22"]
  }
}

# The workflows, without a key: GitHub says who they are, and only this repository's environment of this name is heard.
resource "google_iam_workload_identity_pool" "github" {
  workload_identity_pool_id = "taxifare-${var.environment}"
}

resource "google_iam_workload_identity_pool_provider" "github" {
  workload_identity_pool_id          = google_iam_workload_identity_pool.github.workload_identity_pool_id
  workload_identity_pool_provider_id = "github"
  attribute_condition                = "assertion.sub == 'repo:${var.repository}:environment:${var.environment}'"

  attribute_mapping = {
    "google.subject"       = "assertion.sub"
    "attribute.repository" = "assertion.repository"
  }

  oidc {
    issuer_uri = "https://token.actions.githubusercontent.com"
  }
}

resource "google_service_account" "release" {
  account_id   = "taxifare-release-${var.environment}"
  display_name = "releases of taxifare, ${var.environment}"
}

resource "google_service_account_iam_member" "github" {
  service_account_id = google_service_account.release.name
  role               = "roles/iam.workloadIdentityUser"
  member             = "principal://iam.googleapis.com/${google_iam_workload_identity_pool.github.name}/subject/repo:${var.repository}:environment:${var.environment}"
}

resource "google_artifact_registry_repository_iam_member" "release" {
  repository = local.state.image_repository
  location   = var.region
  role       = "roles/artifactregistry.writer"
  member     = google_service_account.release.member
}

resource "google_compute_instance_iam_member" "release" {
  instance_name = google_compute_instance.taxifare.name
  zone          = var.zone
  role          = "roles/compute.osAdminLogin"
  member        = google_service_account.release.member
}

resource "google_iap_tunnel_instance_iam_member" "release" {
  instance = google_compute_instance.taxifare.name
  zone     = var.zone
  role     = "roles/iap.tunnelResourceAccessor"
  member   = google_service_account.release.member
}

# Whoever logs in to a machine has to be allowed to be its account.
resource "google_service_account_iam_member" "release_on_machine" {
  service_account_id = google_service_account.taxifare.name
  role               = "roles/iam.serviceAccountUser"
  member             = google_service_account.release.member
}
