//! Small file systems, to be filled and broken. They need root.

use std::{
    fs::{self, File},
    io::Write,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result};
use tempfile::TempDir;

use crate::process::output;

/// The file that fills it.
const BALLAST: &str = "ballast";

/// A small file system, mounted until it is dropped.
#[derive(Debug)]
pub struct SmallDisk {
    _folder: TempDir,
    image: Option<PathBuf>,
    /// Where it is mounted.
    pub at: PathBuf,
}

impl SmallDisk {
    /// A tmpfs.
    ///
    /// # Errors
    /// When it cannot be mounted.
    pub fn tmpfs(size_mb: u32) -> Result<Self> {
        let (folder, at) = mount_point()?;
        output(Command::new("mount").args(["-t", "tmpfs", "-o", &format!("size={size_mb}m"), "tmpfs"]).arg(&at))?;
        Ok(Self { _folder: folder, image: None, at })
    }

    /// An ext4 on an image.
    ///
    /// # Errors
    /// When it cannot be made or mounted.
    pub fn ext4(size_mb: u64) -> Result<Self> {
        let (folder, at) = mount_point()?;
        let image = folder.path().join("image");
        File::create(&image)?.set_len(size_mb << 20)?;
        output(Command::new("mkfs.ext4").args(["-q", "-m", "0"]).arg(&image))?;
        output(Command::new("mount").args(["-o", "loop"]).arg(&image).arg(&at))?;
        Ok(Self { _folder: folder, image: Some(image), at })
    }

    /// Turns an ext4 read-only under whoever uses it, as the kernel does after an error of the medium.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn abort(&self) -> Result<()> {
        output(Command::new("mount").args(["-o", "remount,abort"]).arg(&self.at)).map(drop)
    }

    /// Takes an ext4 away, repairs it, and mounts it again. Nobody may use it.
    ///
    /// # Errors
    /// When it is in use or beyond repair.
    pub fn mount_again(&self) -> Result<()> {
        let image = self.image.as_ref().context("only a file system on an image can be mounted again")?;
        output(Command::new("umount").arg(&self.at))?;
        // It answers 1 where it has repaired something.
        let _ = Command::new("fsck.ext4").arg("-p").arg(image).output();
        output(Command::new("mount").args(["-o", "loop"]).arg(image).arg(&self.at)).map(drop)
    }

    /// Writes until so much is left; 0: until nothing goes any more.
    ///
    /// # Errors
    /// When the file cannot be made.
    pub fn fill(&self, leave_bytes: u64) -> Result<()> {
        let mut file = File::options().create(true).append(true).open(self.at.join(BALLAST))?;
        let block = [7; 4 << 10];
        let mut left = if leave_bytes == 0 { u64::MAX } else { self.free_bytes()?.saturating_sub(leave_bytes) };
        while left > 0 && file.write_all(&block).is_ok() {
            left = left.saturating_sub(block.len() as u64);
        }
        // Of a full disk the end of the file cannot be written, which is what is wanted.
        let _ = file.sync_all();
        Ok(())
    }

    /// Takes away what [`Self::fill`] wrote.
    ///
    /// # Errors
    /// When it cannot be removed.
    pub fn free(&self) -> Result<()> {
        Ok(fs::remove_file(self.at.join(BALLAST))?)
    }

    /// What is free, in bytes.
    ///
    /// # Errors
    /// When the file system does not say.
    pub fn free_bytes(&self) -> Result<u64> {
        let told = output(Command::new("stat").args(["-f", "-c", "%a %S"]).arg(&self.at))?;
        let (blocks, size) = told.trim().split_once(' ').context("stat said something else")?;
        Ok(blocks.parse::<u64>()? * size.parse::<u64>()?)
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        if let Err(error) = output(Command::new("umount").arg("-l").arg(&self.at)) {
            eprintln!("{error:#}");
        }
    }
}

fn mount_point() -> Result<(TempDir, PathBuf)> {
    let folder = tempfile::tempdir()?;
    let at = Path::join(folder.path(), "at");
    fs::create_dir(&at)?;
    Ok((folder, at))
}
