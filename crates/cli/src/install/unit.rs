//! The systemd unit, with no more rights than the areas need.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use outlive_trace::Backing;

use super::manifest::Planned;

/// The folder that systemd makes for a service (`StateDirectory=`).
const STATE: &str = "/var/lib/outlive";

/// What the unit depends on.
pub(crate) struct Unit<'a> {
    pub(crate) program: &'a Path,
    pub(crate) state: &'a Path,
    /// The areas whose backings were given, and the instances that lie at an address.
    pub(crate) areas: &'a [(String, Backing)],
}

impl Unit<'_> {
    /// The unit's file (systemd.unit(5), systemd.service(5), systemd.exec(5) of systemd 252).
    pub(crate) fn text(&self) -> String {
        let mounts = words(self.folders().iter().map(|path| quoted(path)));
        let is_elsewhere = self.state != Path::new(STATE);
        let after_tmpfiles = match is_elsewhere {
            true => " systemd-tmpfiles-setup.service",
            false => "",
        };
        format!(
            "\
[Unit]
Description=Flight recorder that outlives the crash
DefaultDependencies=no
RequiresMountsFor={mounts}
Wants=sys-kernel-tracing.mount
After=sys-kernel-tracing.mount systemd-remount-fs.service{after_tmpfiles}
Before=sysinit.target shutdown.target
Conflicts=shutdown.target
StartLimitIntervalSec=60
StartLimitBurst=10

[Service]
Type=notify
ExecStart={command}
Restart=on-failure
RestartSec=1
# 2: the command line is wrong; 3: another recorder; 4: the system refuses. Trying again changes nothing.
RestartPreventExitStatus=2 3 4
TimeoutStartSec=120
TimeoutStopSec=20
OOMScoreAdjust=-900
UMask=0077
{places}
RuntimeDirectory=outlive
RuntimeDirectoryMode=0700
RuntimeDirectoryPreserve=yes
CapabilityBoundingSet={capabilities}
{devices}
NoNewPrivileges=yes
ProtectSystem=strict
ProtectHome=read-only
ProtectHostname=yes
ProtectKernelModules=yes
ProtectControlGroups=yes
PrivateNetwork=yes
RestrictAddressFamilies=AF_UNIX
RestrictNamespaces=yes
RestrictRealtime=yes
RestrictSUIDSGID=yes
LockPersonality=yes
MemoryDenyWriteExecute=yes
SystemCallArchitectures=native
SystemCallFilter=@system-service

[Install]
WantedBy=sysinit.target
",
            command = self.command(),
            places = self.places(),
            capabilities = self.capabilities(),
            devices = self.devices(),
        )
    }

    /// A `tmpfiles.d` entry for a state folder that systemd does not make by itself.
    pub(crate) fn tmpfiles(&self) -> Option<Planned> {
        if self.state == Path::new(STATE) {
            return None;
        }
        let path = self.state.to_string_lossy().replace('%', "%%");
        let text = format!("d \"{path}\" 0700 root root -\n");
        Some(Planned::file("/etc/tmpfiles.d/outlive.conf", text))
    }

    fn command(&self) -> String {
        let (program, state) = (quoted(self.program), quoted(self.state));
        format!("{program} --state {state} boot")
    }

    /// Folders that have to be mounted before the start.
    fn folders(&self) -> BTreeSet<PathBuf> {
        let mut folders = self.area_folders();
        folders.insert(self.state.to_owned());
        folders
    }

    fn area_folders(&self) -> BTreeSet<PathBuf> {
        let folder = |backing: &Backing| match backing {
            Backing::DevDax(_) => None,
            backing => backing.path().map(|path| match path.is_dir() {
                true => path.to_owned(),
                false => path.parent().unwrap_or(path).to_owned(),
            }),
        };
        let backings = self.areas.iter().map(|(_, backing)| backing);
        backings.filter_map(folder).collect()
    }

    /// Where it may write.
    fn places(&self) -> String {
        let mut writable = self.area_folders();
        let mut places = Vec::new();
        match self.state == Path::new(STATE) {
            true => places.push("StateDirectory=outlive\nStateDirectoryMode=0700".to_owned()),
            false => {
                writable.insert(self.state.to_owned());
            }
        }
        if !writable.is_empty() {
            let writable = words(writable.iter().map(|path| quoted(path)));
            places.push(format!("ReadWritePaths={writable}"));
        }
        places.join("\n")
    }

    fn has_physical(&self) -> bool {
        let mut backings = self.areas.iter().map(|(_, backing)| backing);
        backings.any(|backing| matches!(backing, Backing::DevMem { .. }))
    }

    /// Symbols' addresses need `CAP_SYSLOG`, the thread that takes the events is not to wait
    /// (`CAP_SYS_NICE`); `/dev/mem` and the addresses in `/proc/iomem` need the other two.
    fn capabilities(&self) -> &'static str {
        match self.has_physical() {
            true => "CAP_SYSLOG CAP_SYS_NICE CAP_SYS_RAWIO CAP_SYS_ADMIN",
            false => "CAP_SYSLOG CAP_SYS_NICE",
        }
    }

    fn devices(&self) -> String {
        let device = |(_, backing): &(String, Backing)| match backing {
            Backing::DevMem { .. } => Some("/dev/mem".to_owned()),
            Backing::DevDax(path) => Some(quoted(path)),
            _ => None,
        };
        let devices: BTreeSet<String> = self.areas.iter().filter_map(device).collect();
        if devices.is_empty() {
            return "PrivateDevices=yes".into();
        }
        let allowed = devices
            .iter()
            .map(|device| format!("\nDeviceAllow={device} rw"));
        format!("DevicePolicy=closed{}", allowed.collect::<String>())
    }
}

fn words(words: impl IntoIterator<Item = String>) -> String {
    let words: Vec<String> = words.into_iter().collect();
    words.join(" ")
}

/// A word as systemd reads it (systemd.syntax(7), "Quoting"; `%` and `$` stand for themselves when
/// doubled).
fn quoted(path: &Path) -> String {
    let text = path.to_string_lossy();
    let text = text.replace('%', "%%").replace('$', "$$");
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "/._-=:,+@%$".contains(c);
    match text.chars().all(is_plain) {
        true => text,
        false => format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\"")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_quoted_as_systemd_reads_them() {
        let quoted = |text: &str| quoted(Path::new(text));
        assert_eq!(quoted("/usr/bin/outlive"), "/usr/bin/outlive");
        assert_eq!(quoted("/a b\"\\"), "\"/a b\\\"\\\\\"");
        assert_eq!(quoted("/50%/$x"), "/50%%/$$x");
    }

    #[test]
    fn unit_gets_the_rights_that_its_areas_need() {
        let text = |areas: &[&str]| {
            let areas: Vec<_> = areas
                .iter()
                .map(|backing| ("trace".to_owned(), backing.parse().unwrap()))
                .collect();
            let unit = Unit {
                program: Path::new("/usr/bin/outlive"),
                state: Path::new(STATE),
                areas: &areas,
            };
            unit.text()
        };
        let plain = text(&[]);
        assert!(plain.contains("PrivateDevices=yes") && !plain.contains("RAWIO"));
        assert!(plain.contains("ExecStart=/usr/bin/outlive --state /var/lib/outlive boot\n"));
        let physical = text(&["mem:0x10000000"]);
        assert!(physical.contains("DeviceAllow=/dev/mem rw") && physical.contains("CAP_SYS_RAWIO"));
        let dax = text(&["dax:/pmem/area"]);
        assert!(dax.contains("RequiresMountsFor=/pmem /var/lib/outlive\n"));
        assert!(dax.contains("ReadWritePaths=/pmem\n"));
    }
}
