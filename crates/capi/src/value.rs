//! Types of fields, and their values.

#![allow(unsafe_code)]

use std::ffi::{c_char, c_void};

use outlive::dynamic::Fields;
use outlive::{Field, FieldType};

use crate::pointer;
use crate::status::{Failure, OUTLIVE_BAD_STRUCT, OUTLIVE_BAD_TYPE};

/// An integer of 8 bits without a sign: data.u.
pub const OUTLIVE_U8: u32 = 1;
/// An integer of 16 bits without a sign: data.u.
pub const OUTLIVE_U16: u32 = 2;
/// An integer of 32 bits without a sign: data.u.
pub const OUTLIVE_U32: u32 = 3;
/// An integer of 64 bits without a sign: data.u.
pub const OUTLIVE_U64: u32 = 4;
/// An integer of 8 bits: data.i.
pub const OUTLIVE_I8: u32 = 5;
/// An integer of 16 bits: data.i.
pub const OUTLIVE_I16: u32 = 6;
/// An integer of 32 bits: data.i.
pub const OUTLIVE_I32: u32 = 7;
/// An integer of 64 bits: data.i.
pub const OUTLIVE_I64: u32 = 8;
/// true or false: data.u, where all but 0 is true.
pub const OUTLIVE_BOOL: u32 = 9;
/// A floating-point number of 32 bits: data.f.
pub const OUTLIVE_F32: u32 = 10;
/// A floating-point number of 64 bits: data.f.
pub const OUTLIVE_F64: u32 = 11;
/// A text of len bytes at data.bytes. It need not end with a zero.
pub const OUTLIVE_TEXT: u32 = 12;
/// len bytes at data.bytes.
pub const OUTLIVE_BYTES: u32 = 13;

/// A field of an event.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub struct outlive_field {
    /// Letters, digits and _, no digit first.
    pub name: *const c_char,
    /// One of OUTLIVE_U8 and so on.
    pub r#type: u32,
    /// Zero.
    pub reserved: u32,
}

impl outlive_field {
    /// The field's name and type.
    ///
    /// # Safety
    ///
    /// The name is null or a text that stays as it is for `'a`.
    pub(crate) unsafe fn read<'a>(&self) -> Result<(&'a str, FieldType), Failure> {
        if self.reserved != 0 {
            return Err(OUTLIVE_BAD_STRUCT.into());
        }
        // SAFETY: as the caller promises.
        let name = unsafe { pointer::text(self.name) }?;
        Ok((name, field_type(self.r#type)?))
    }
}

fn field_type(code: u32) -> Result<FieldType, Failure> {
    Ok(match code {
        OUTLIVE_U8 => u8::TYPE,
        OUTLIVE_U16 => u16::TYPE,
        OUTLIVE_U32 => u32::TYPE,
        OUTLIVE_U64 => u64::TYPE,
        OUTLIVE_I8 => i8::TYPE,
        OUTLIVE_I16 => i16::TYPE,
        OUTLIVE_I32 => i32::TYPE,
        OUTLIVE_I64 => i64::TYPE,
        OUTLIVE_BOOL => bool::TYPE,
        OUTLIVE_F32 => f32::TYPE,
        OUTLIVE_F64 => f64::TYPE,
        OUTLIVE_TEXT => FieldType::Text,
        OUTLIVE_BYTES => <[u8]>::TYPE,
        _ => return Err(OUTLIVE_BAD_TYPE.into()),
    })
}

/// What a value is, by its type.
#[repr(C)]
#[derive(Clone, Copy)]
pub union outlive_data {
    /// Of integers without a sign, and bool.
    pub u: u64,
    /// Of integers with a sign.
    pub i: i64,
    /// Of floating-point numbers.
    pub f: f64,
    /// Of texts and bytes.
    pub bytes: *const c_void,
}

/// A value of a field. An integer that its type cannot hold is cut to the lower bits.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct outlive_value {
    /// That of the field.
    pub r#type: u32,
    /// Bytes of a text or of bytes; else zero.
    pub len: u32,
    /// The value.
    pub data: outlive_data,
}

impl outlive_value {
    /// Puts the value into the field number `index`.
    ///
    /// # Safety
    ///
    /// The member of `data` that the type tells is initialised; where that is a pointer, there are `len`
    /// bytes.
    #[inline]
    pub(crate) unsafe fn put(&self, fields: &mut Fields<'_>, index: usize) -> Result<(), Failure> {
        // SAFETY: the type tells that it is this member, in each case; as the caller promises.
        let u = || unsafe { self.data.u };
        // SAFETY: the same.
        let i = || unsafe { self.data.i };
        // SAFETY: the same.
        let f = || unsafe { self.data.f };
        let is_put = match self.r#type {
            OUTLIVE_U8 => fields.put(index, &(u() as u8)),
            OUTLIVE_U16 => fields.put(index, &(u() as u16)),
            OUTLIVE_U32 => fields.put(index, &(u() as u32)),
            OUTLIVE_U64 => fields.put(index, &u()),
            OUTLIVE_I8 => fields.put(index, &(i() as i8)),
            OUTLIVE_I16 => fields.put(index, &(i() as i16)),
            OUTLIVE_I32 => fields.put(index, &(i() as i32)),
            OUTLIVE_I64 => fields.put(index, &i()),
            OUTLIVE_BOOL => fields.put(index, &(u() != 0)),
            OUTLIVE_F32 => fields.put(index, &(f() as f32)),
            OUTLIVE_F64 => fields.put(index, &f()),
            // SAFETY: as the caller promises.
            OUTLIVE_TEXT => fields.put_text(index, unsafe { self.bytes() }?),
            // SAFETY: as the caller promises.
            OUTLIVE_BYTES => fields.put(index, unsafe { self.bytes() }?),
            _ => false,
        };
        match is_put {
            true => Ok(()),
            false => Err(OUTLIVE_BAD_TYPE.into()),
        }
    }

    /// # Safety
    ///
    /// It is a text or bytes, and there are so many.
    #[inline]
    unsafe fn bytes(&self) -> Result<&[u8], Failure> {
        // SAFETY: the member that the type tells.
        let bytes = unsafe { self.data.bytes };
        // SAFETY: as the caller promises.
        unsafe { pointer::array(bytes.cast(), self.len as usize) }
    }
}
