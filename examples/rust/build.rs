//! Asks pkg-config where the library is; PKG_CONFIG_PATH names another place than the system's.

use std::process::Command;

fn main() {
    println!("cargo:rerun-if-env-changed=PKG_CONFIG_PATH");
    let asked = Command::new("pkg-config")
        .args(["--variable=libdir", "dtwin"])
        .output()
        .expect("pkg-config cannot be run");
    assert!(
        asked.status.success(),
        "{}",
        String::from_utf8_lossy(&asked.stderr)
    );
    let folder = String::from_utf8(asked.stdout).expect("a path in UTF-8");
    let folder = folder.trim();
    println!("cargo:rustc-link-search=native={folder}");
    println!("cargo:rustc-link-lib=dylib=dtwin");
    println!("cargo:rustc-link-arg=-Wl,-rpath,{folder}");
}
