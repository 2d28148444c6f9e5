//! Areas, the boot command line, instances, backups and generations.

pub mod cmdline;
