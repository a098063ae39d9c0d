# What holds state: bucket, database, registry of images. A root of its own, so that making a machine anew cannot touch
# it. Applied by a person, once a change; never by a workflow.
terraform {
  required_version = ">= 1.9"

  required_providers {
    google = {
      source  = "hashicorp/google"
      version = "6.50.0"
    }
    random = {
      source  = "hashicorp/random"
      version = "3.7.2"
    }
  }

  # terraform init -backend-config=bucket=… ; that bucket has versions, and is made by hand before.
  backend "gcs" {
    prefix = "taxifare/state"
  }
}

provider "google" {
  project = var.project
  region  = var.region
}

resource "google_compute_network" "taxifare" {
  name                    = "taxifare-${var.environment}"
  auto_create_subnetworks = false
}

resource "google_compute_subnetwork" "taxifare" {
  name                     = "taxifare-${var.environment}"
  network                  = google_compute_network.taxifare.id
  region                   = var.region
  ip_cidr_range            = "10.20.0.0/24"
  private_ip_google_access = true
}

resource "google_compute_global_address" "database" {
  name          = "taxifare-${var.environment}-database"
  network       = google_compute_network.taxifare.id
  purpose       = "VPC_PEERING"
  address_type  = "INTERNAL"
  prefix_length = 20
}

resource "google_service_networking_connection" "database" {
  network                 = google_compute_network.taxifare.id
  service                 = "servicenetworking.googleapis.com"
  reserved_peering_ranges = [google_compute_global_address.database.name]
}

# Lake, models and reports.
resource "google_storage_bucket" "lake" {
  name                        = "${var.project}-taxifare-${var.environment}"
  location                    = var.region
  uniform_bucket_level_access = true
  public_access_prevention    = "enforced"

  versioning {
    enabled = true
  }

  lifecycle_rule {
    condition {
      days_since_noncurrent_time = 90
    }
    action {
      type = "Delete"
    }
  }

  lifecycle {
    prevent_destroy = true
  }
}

resource "google_sql_database_instance" "taxifare" {
  name                = "taxifare-${var.environment}"
  database_version    = "POSTGRES_17"
  region              = var.region
  deletion_protection = true
  depends_on          = [google_service_networking_connection.database]

  settings {
    tier              = var.database_tier
    edition           = "ENTERPRISE"
    availability_type = "ZONAL"
    disk_autoresize   = true

    ip_configuration {
      ipv4_enabled    = false
      private_network = google_compute_network.taxifare.id
      ssl_mode        = "ENCRYPTED_ONLY"
    }

    backup_configuration {
      enabled                        = true
      point_in_time_recovery_enabled = true

      backup_retention_settings {
        retained_backups = 30
      }
    }
  }

  lifecycle {
    prevent_destroy = true
  }
}

# Databases and roles inside are made once by deploy/postgres/databases.sh, with psql: the ledger's owner and who works
# with it are two, and a role that Cloud SQL makes could do more than either may.
resource "random_password" "superuser" {
  length  = 48
  special = false
}

resource "google_sql_user" "superuser" {
  name     = "postgres"
  instance = google_sql_database_instance.taxifare.name
  password = random_password.superuser.result
}

resource "google_artifact_registry_repository" "images" {
  repository_id = "taxifare-${var.environment}"
  location      = var.region
  format        = "DOCKER"

  docker_config {
    immutable_tags = true
  }
}

# deploy/.env of the machine: a version is added by hand, and Terraform never sees it.
resource "google_secret_manager_secret" "environment" {
  secret_id = "taxifare-${var.environment}-env"

  replication {
    auto {}
  }
}
