"""Files that came with a job: decoded, verified, fetched by URL."""
