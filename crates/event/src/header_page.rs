//! `events/header_page`: where in a sub-buffer the time stamp, the commit word and the data lie.

/// What `header_page` says of the sub-buffers of a kernel.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HeaderPage {
    /// The file's text.
    pub text: String,
    /// Bytes of the commit word: 8 on 64-bit kernels.
    pub commit_size: u32,
    /// Offset of the commit word.
    pub commit_offset: u32,
    /// Offset of the data.
    pub data_offset: u32,
    /// Bytes of data; with `data_offset` the size of a sub-buffer.
    pub data_size: u32,
}

impl HeaderPage {
    /// Parses the text; what it does not say is as on a 64-bit kernel with 4 KiB sub-buffers.
    #[must_use]
    pub fn parse(text: &str) -> Self {
        let line = |name: &str| text.lines().find(|l| l.contains(&format!(" {name};")));
        let number = |name: &str, key: &str, default: u32| {
            let part =
                line(name).and_then(|l| l.split(';').find_map(|p| p.trim().strip_prefix(key)));
            part.and_then(|v| v.parse().ok()).unwrap_or(default)
        };
        Self {
            text: text.to_owned(),
            commit_size: number("commit", "size:", 8),
            commit_offset: number("commit", "offset:", 8),
            data_offset: number("data", "offset:", 16),
            data_size: number("data", "size:", 4080),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_sub_buffer_geometry_is_read() {
        let text = "\tfield: u64 timestamp;\toffset:0;\tsize:8;\tsigned:0;\n\
            \tfield: local_t commit;\toffset:8;\tsize:8;\tsigned:1;\n\
            \tfield: char data;\toffset:16;\tsize:16368;\tsigned:0;\n";
        let page = HeaderPage::parse(text);
        assert_eq!((page.commit_size, page.commit_offset), (8, 8));
        assert_eq!((page.data_offset, page.data_size), (16, 16368));
        assert_eq!(HeaderPage::parse("").data_size, 4080);
    }
}
